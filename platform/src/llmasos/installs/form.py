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
    faults = [
        (f"config {name!r} is not a field of {manifest.id}", f"配置 {name!r} 不是 {manifest.id} 的字段")
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
            f"{manifest.id}: {'; '.join(en for en, _ in faults)}. Fields: {known or 'none'}",
            zh=f"{manifest.id}：{'；'.join(zh for _, zh in faults)}。字段：{known or '无'}",
        )
    return values


def still_valid(manifest: Manifest, old: Mapping[str, Any]) -> dict[str, Any]:
    """The values chosen before that the new form still takes."""
    return {
        name: value
        for name, value in old.items()
        if name in manifest.config and manifest.config[name].fault_of(value) is None
    }
