"""What must hold between the parts of a manifest. Pure: parts to faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from llmasos.bundles.faults import Fault
from llmasos.bundles.hosts import HostPattern
from llmasos.bundles.parts import AppsPermission, ConfigField, HttpPermission, Permission, Runtime, SecretsPermission


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a manifest, None where one did not parse."""

    id: str | None
    runtime: Runtime | None
    permissions: Sequence[Permission | None]
    config: Mapping[str, ConfigField | None]
    dependencies: frozenset[str]


def inconsistencies(parts: Parts) -> Iterator[Fault]:
    """Every fault between parts that are each fine."""
    if parts.runtime is not None:
        yield from _runtime(parts.runtime)
    yield from _duplicates(parts.permissions)
    yield from _apps(parts)
    yield from _secrets(parts.permissions)
    for name, field in parts.config.items():
        if field is not None:
            yield from _config(f"config.{name}", field)
    if parts.id is not None and parts.id in parts.dependencies:
        yield Fault(f'dependencies."{parts.id}"', "an app cannot depend on itself", "remove it")


# What each kind may be made from, and how the files of a finished one end.
_MADE_FROM = {"wasm": ("source", "component"), "python": ("source", "wheel")}
_ENDINGS = {"component": (".wasm",), "wheel": (".whl",)}


def _runtime(runtime: Runtime) -> Iterator[Fault]:
    given = {key: getattr(runtime, key) for key in ("source", "component", "wheel")}
    named = [key for key, value in given.items() if value is not None]
    fitting = _MADE_FROM[runtime.kind]
    for key in named:
        if key not in fitting:
            cure = f"name {' or '.join(fitting)}, or change the kind"
            yield Fault(f"runtime.{key}", f'kind = "{runtime.kind}" is not made from a {key}', cure)
    if len([key for key in named if key in fitting]) != 1 and all(key in fitting for key in named):
        what = "it names both" if named else "it does not say what the app is made from"
        yield Fault("runtime", what, f"give exactly one of {' and '.join(fitting)}")
    if runtime.requirements and (runtime.kind != "python" or runtime.source is None):
        what = 'only a kind = "python" app made from a source names requirements'
        yield Fault("runtime.requirements", what, "remove them; a finished wheel names its own")
    for key, endings in _ENDINGS.items():
        value = given[key]
        if value is not None and PurePosixPath(value).suffix not in endings:
            yield Fault(f"runtime.{key}", f"{value!r} does not end in {endings[0]}", "name the finished file")


def _duplicates(permissions: Sequence[Permission | None]) -> Iterator[Fault]:
    counted = Counter(permission.capability for permission in permissions if permission)
    for capability, times in counted.items():
        if times > 1:
            yield Fault("permissions", f"{capability!r} is asked for {times} times", "merge them into one")


def _apps(parts: Parts) -> Iterator[Fault]:
    for index, permission in enumerate(parts.permissions):
        if not isinstance(permission, AppsPermission):
            continue
        for app in permission.apps:
            if app not in parts.dependencies:
                cure = f'add "{app}" = ">=1,<2" under [dependencies]'
                yield Fault(f"permissions[{index}].apps", f"{app} is not a dependency", cure)


def _secrets(permissions: Sequence[Permission | None]) -> Iterator[Fault]:
    reached: list[HostPattern] = []
    for permission in permissions:
        if isinstance(permission, HttpPermission):
            reached.extend(permission.patterns)
    for index, permission in enumerate(permissions):
        if not isinstance(permission, SecretsPermission):
            continue
        for place in permission.secrets:
            if not any(pattern.covers(HostPattern.parse(place.host)) for pattern in reached):
                cure = f'add it to the hosts of a permission with capability = "http": hosts = ["{place.host}"]'
                what = f"the secret {place.name!r} goes to {place.host}, which the app may not reach"
                yield Fault(f"permissions[{index}].secrets", what, cure)
        places = Counter((place.host, (place.header or "").lower(), place.query) for place in permission.secrets)
        for (host, header, query), times in places.items():
            if times > 1:
                what = f"{times} secrets go into {header or query} of {host}"
                yield Fault(f"permissions[{index}].secrets", what, "give each its own place")


def _config(path: str, field: ConfigField) -> Iterator[Fault]:
    plain = field.model_copy(update={"enum": None, "type": "string" if field.type == "array" else field.type})
    for choice in field.enum or ():
        fault = plain.fault_of(choice)
        if fault:
            yield Fault(f"{path}.enum", fault)
    if field.default is not None:
        fault = field.fault_of(field.default)
        if fault:
            yield Fault(f"{path}.default", fault)
    if field.ui == "textarea" and field.type not in {"string", "array"}:
        yield Fault(f"{path}.ui", f"a textarea holds text, not a {field.type}", 'write ui = "text"')
