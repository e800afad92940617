"""The install form of an app: its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from llmasos.bundles.manifest import Manifest
from llmasos.errors import Invalid
from llmasos.i18n import Texts, _, listing


def config_values(manifest: Manifest, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check the values of an app's form, and fill in defaults.

    Raises:
        Invalid: The message names each field whose value is missing, not valid or not a field of the form.
    """
    faults = [
        _("config {name!r} is not a field of {manifest}", name=name, manifest=manifest.id)
        for name in given
        if name not in manifest.config
    ]
    values: dict[str, Any] = {}
    for name, form_field in manifest.config.items():
        value = given.get(name, form_field.default)
        if value is None:
            title = Texts(form_field.title.model_dump(exclude_none=True))
            faults.append(_("config {name!r} needs a value ({title})", name=name, title=title))
            continue
        fault = form_field.fault_of(value)
        if fault:
            faults.append(_("config {name!r}: {what}", name=name, what=fault))
        values[name] = list(cast("tuple[str, ...]", value)) if isinstance(value, tuple) else value
    if faults:
        known = listing(manifest.config) if manifest.config else _("none")
        raise Invalid(_("{app}: {faults}. Fields: {known}", app=manifest.id, faults=listing(faults, "; "), known=known))
    return values


def missing_settings(manifest: Manifest, given: Mapping[str, Any]) -> list[str]:
    """The fields that need a value but have neither a given one nor a default."""
    return [name for name, field in manifest.config.items() if given.get(name, field.default) is None]


def reset_settings(manifest: Manifest, old: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields that fall back to the default: the new form rejects their old value, and no new one was given."""
    kept = still_valid(manifest, old)
    return tuple(name for name in old if name in manifest.config and name not in kept and name not in given)


def still_valid(manifest: Manifest, old: Mapping[str, Any]) -> dict[str, Any]:
    """The earlier values that the new form still accepts."""
    return {
        name: value
        for name, value in old.items()
        if name in manifest.config and manifest.config[name].fault_of(value) is None
    }
