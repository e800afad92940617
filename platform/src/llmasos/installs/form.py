"""The form that an app shows at install: its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from llmasos.bundles.manifest import Manifest
from llmasos.errors import Invalid
from llmasos.i18n import _


def config_values(manifest: Manifest, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an app's form, defaults filled in.

    Raises:
        Invalid: A value does not fit, is of no field, or is missing, each with its field.
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
            title = form_field.title
            faults.append(
                (f"config {name!r} needs a value ({title.en})", f"配置 {name!r} 需要一个值（{title.in_locale('zh')}）")
            )
            continue
        fault = form_field.fault_of(value)
        if fault:
            faults.append((f"config {name!r}: {fault[0]}", f"配置 {name!r}：{fault[1]}"))
        values[name] = list(cast("tuple[str, ...]", value)) if isinstance(value, tuple) else value
    if faults:
        known = ", ".join(manifest.config)
        raise Invalid(
            f"{manifest.id}: {'; '.join(en for en, __ in faults)}. Fields: {known or 'none'}",
            zh=f"{manifest.id}：{'；'.join(zh for __, zh in faults)}。字段：{known or '无'}",
        )
    return values


def missing_settings(manifest: Manifest, given: Mapping[str, Any]) -> list[str]:
    """The fields that need a value and have neither a given one nor a default."""
    return [name for name, field in manifest.config.items() if given.get(name, field.default) is None]


def reset_settings(manifest: Manifest, old: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields whose chosen value the new form does not take, and that were not given anew: they get the default."""
    kept = still_valid(manifest, old)
    return tuple(name for name in old if name in manifest.config and name not in kept and name not in given)


def still_valid(manifest: Manifest, old: Mapping[str, Any]) -> dict[str, Any]:
    """The values chosen before that the new form still takes."""
    return {
        name: value
        for name, value in old.items()
        if name in manifest.config and manifest.config[name].fault_of(value) is None
    }
