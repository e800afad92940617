"""Rules between the parts of a manifest. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from llmasos.bundles.faults import ManifestFault
from llmasos.bundles.hosts import HostPattern
from llmasos.bundles.parts import (
    MAX_RESPONSE_BYTES,
    AppsPermission,
    ConfigField,
    HttpPermission,
    Permission,
    RuntimeSection,
    SecretsPermission,
)
from llmasos.i18n import _, any_of, listing


@dataclass(frozen=True, slots=True)
class ManifestParts:
    """The parts of a manifest; None for a part that did not parse."""

    id: str | None
    runtime: RuntimeSection | None
    permissions: Sequence[Permission | None]
    config: Mapping[str, ConfigField | None]
    dependencies: frozenset[str]


def inconsistencies(parts: ManifestParts) -> Iterator[ManifestFault]:
    """Find every contradiction between parts that are valid by themselves."""
    if parts.runtime is not None:
        yield from _runtime(parts.runtime)
    yield from _duplicates(parts.permissions)
    yield from _apps(parts)
    yield from _secrets(parts.permissions)
    yield from _responses(parts.permissions)
    for name, field in parts.config.items():
        if field is not None:
            yield from _config(f"config.{name}", field)
    if parts.id is not None and parts.id in parts.dependencies:
        yield ManifestFault(f'dependencies."{parts.id}"', _ITSELF, _("remove it"))


def _responses(permissions: Sequence[Permission | None]) -> Iterator[ManifestFault]:
    for index, permission in enumerate(permissions):
        if isinstance(permission, HttpPermission) and permission.max_response_bytes > MAX_RESPONSE_BYTES:
            yield ManifestFault(
                f"permissions[{index}].max_response_bytes",
                _("an answer of that size does not fit into a message to the app"),
                _("write at most {limit}, and fetch more in parts with `Range`", limit=MAX_RESPONSE_BYTES),
            )


_ITSELF = _("an app cannot depend on itself")
# The allowed sources of each kind, and the suffixes of finished files.
_MADE_FROM = {"wasm": ("source", "component"), "python": ("source", "wheel")}
# An operator's runtime runs finished files only: `build` compiles for the host's own runtimes alone.
_FINISHED = ("component", "wheel")
_ENDINGS = {"component": (".wasm",), "wheel": (".whl",)}


def _runtime(runtime: RuntimeSection) -> Iterator[ManifestFault]:
    given = {key: getattr(runtime, key) for key in ("source", "component", "wheel")}
    named = [key for key, value in given.items() if value is not None]
    fitting = _MADE_FROM.get(runtime.kind, _FINISHED)
    for key in named:
        if key not in fitting:
            what = _('kind = "{kind}" is not made from a {key}', kind=runtime.kind, key=key)
            cure = _("name {fitting}, or change the kind", fitting=any_of(fitting))
            yield ManifestFault(f"runtime.{key}", what, cure)
    if len([key for key in named if key in fitting]) != 1 and all(key in fitting for key in named):
        both, neither = (
            _("it names both"),
            _("it does not say what the app is made from"),
        )
        cure = _("give exactly one of {fitting}", fitting=listing(fitting, " and "))
        yield ManifestFault("runtime", both if named else neither, cure)
    if runtime.requirements and PurePosixPath(runtime.source or "").suffix != ".py":
        what = _("only an app made from a Python source names requirements")
        cure = _("remove them; a finished wheel names its own, and JavaScript has package.json")
        yield ManifestFault("runtime.requirements", what, cure)
    for key, endings in _ENDINGS.items():
        value = given[key]
        if value is not None and PurePosixPath(value).suffix not in endings:
            what = _("{value!r} does not end in {ending}", value=value, ending=endings[0])
            yield ManifestFault(f"runtime.{key}", what, _("name the finished file"))


def _duplicates(permissions: Sequence[Permission | None]) -> Iterator[ManifestFault]:
    counted = Counter(permission.capability for permission in permissions if permission)
    for capability, times in counted.items():
        if times > 1:
            what = _("{capability!r} is asked for {times} times", capability=capability, times=times)
            yield ManifestFault("permissions", what, _("merge them into one"))


def _apps(parts: ManifestParts) -> Iterator[ManifestFault]:
    for index, permission in enumerate(parts.permissions):
        if not isinstance(permission, AppsPermission):
            continue
        for app in permission.apps:
            if app not in parts.dependencies:
                line = f'"{app}" = ">=1,<2"'
                cure = _("add {line} under [dependencies]", line=line)
                what = _("{app} is not a dependency", app=app)
                yield ManifestFault(f"permissions[{index}].apps", what, cure)


def _secrets(permissions: Sequence[Permission | None]) -> Iterator[ManifestFault]:
    reached: list[HostPattern] = []
    for permission in permissions:
        if isinstance(permission, HttpPermission):
            reached.extend(permission.patterns)
    for index, permission in enumerate(permissions):
        if not isinstance(permission, SecretsPermission):
            continue
        for place in permission.secrets:
            if not any(pattern.covers(HostPattern.parse(place.host)) for pattern in reached):
                line = f'hosts = ["{place.host}"]'
                cure = _('add it to the hosts of a permission with capability = "http": {line}', line=line)
                what = _(
                    "the secret {place!r} goes to {host}, which the app may not reach",
                    place=place.name,
                    host=place.host,
                )
                yield ManifestFault(f"permissions[{index}].secrets", what, cure)
        places = Counter((place.host, (place.header or "").lower(), place.query) for place in permission.secrets)
        for (host, header, query), times in places.items():
            if times > 1:
                what = _("{times} secrets go into {header} of {host}", times=times, header=header or query, host=host)
                yield ManifestFault(f"permissions[{index}].secrets", what, _("give each its own place"))


def _config(path: str, field: ConfigField) -> Iterator[ManifestFault]:
    plain = field.model_copy(update={"enum": None, "type": "string" if field.type == "array" else field.type})
    for choice in field.enum or ():
        fault = plain.fault_of(choice)
        if fault:
            yield ManifestFault(f"{path}.enum", fault)
    if field.default is not None:
        fault = field.fault_of(field.default)
        if fault:
            yield ManifestFault(f"{path}.default", fault)
    if field.ui == "textarea" and field.type not in {"string", "array"}:
        what = _("a textarea holds text, not a {type}", type=field.type)
        yield ManifestFault(f"{path}.ui", what, _('write ui = "text"'))
