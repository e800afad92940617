"""The form that an app shows at install: its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from llmasos.bundles.manifest import Manifest
from llmasos.errors import Invalid


def config_values(manifest: Manifest, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an app's form, defaults filled in.

    Raises:
        Invalid: A value does not fit, is of no field, or is missing, each with its field.
    """
    faults = [f"config {name!r} is not a field of {manifest.id}" for name in given if name not in manifest.config]
    values: dict[str, Any] = {}
    for name, form_field in manifest.config.items():
        value = given.get(name, form_field.default)
        if value is None:
            faults.append(f"config {name!r} needs a value ({form_field.title.en})")
            continue
        fault = form_field.fault_of(value)
        if fault:
            faults.append(f"config {name!r}: {fault}")
        values[name] = list(cast("tuple[str, ...]", value)) if isinstance(value, tuple) else value
    if faults:
        known = ", ".join(manifest.config) or "none"
        raise Invalid(f"{manifest.id}: {'; '.join(faults)}. Fields: {known}")
    return values


def still_valid(manifest: Manifest, old: Mapping[str, Any]) -> dict[str, Any]:
    """The values chosen before that the new form still takes."""
    return {
        name: value
        for name, value in old.items()
        if name in manifest.config and manifest.config[name].fault_of(value) is None
    }
