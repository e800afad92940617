"""Rules between the parts of a manifest. Pure: from parts to faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from llmasos.bundles.faults import ManifestFault
from llmasos.bundles.hosts import HostPattern
from llmasos.bundles.parts import AppsPermission, ConfigField, HttpPermission, Permission, Runtime, SecretsPermission
from llmasos.i18n import Words


@dataclass(frozen=True, slots=True)
class ManifestParts:
    """The parts of a manifest; a part that did not parse is None."""

    id: str | None
    runtime: Runtime | None
    permissions: Sequence[Permission | None]
    config: Mapping[str, ConfigField | None]
    dependencies: frozenset[str]


def inconsistencies(parts: ManifestParts) -> Iterator[ManifestFault]:
    """Every contradiction between parts that are each valid."""
    if parts.runtime is not None:
        yield from _runtime(parts.runtime)
    yield from _duplicates(parts.permissions)
    yield from _apps(parts)
    yield from _secrets(parts.permissions)
    for name, field in parts.config.items():
        if field is not None:
            yield from _config(f"config.{name}", field)
    if parts.id is not None and parts.id in parts.dependencies:
        yield ManifestFault(f'dependencies."{parts.id}"', _ITSELF, ("remove it", "请删除"))


_ITSELF: Words = ("an app cannot depend on itself", "应用不能依赖自身")
# What each kind may be made from, and how the files of a finished one end.
_MADE_FROM = {"wasm": ("source", "component"), "python": ("source", "wheel")}
# What an operator's runtime runs is finished: `build` compiles for the host's own alone.
_FINISHED = ("component", "wheel")
_ENDINGS = {"component": (".wasm",), "wheel": (".whl",)}


def _runtime(runtime: Runtime) -> Iterator[ManifestFault]:
    given = {key: getattr(runtime, key) for key in ("source", "component", "wheel")}
    named = [key for key, value in given.items() if value is not None]
    fitting = _MADE_FROM.get(runtime.kind, _FINISHED)
    for key in named:
        if key not in fitting:
            what = f'kind = "{runtime.kind}" is not made from a {key}', f'kind = "{runtime.kind}" 不能由 {key} 构成'
            cure = (
                f"name {' or '.join(fitting)}, or change the kind",
                f"请写明 {' 或 '.join(fitting)}，或更改 kind",
            )
            yield ManifestFault(f"runtime.{key}", what, cure)
    if len([key for key in named if key in fitting]) != 1 and all(key in fitting for key in named):
        both, neither = (
            ("it names both", "两者都写了"),
            ("it does not say what the app is made from", "没有写明应用的来源"),
        )
        cure = f"give exactly one of {' and '.join(fitting)}", f"请在 {' 和 '.join(fitting)} 中只写一个"
        yield ManifestFault("runtime", both if named else neither, cure)
    if runtime.requirements and (runtime.kind != "python" or runtime.source is None):
        what = (
            'only a kind = "python" app made from a source names requirements',
            '只有由 source 构成的 kind = "python" 应用才写 requirements',
        )
        cure = "remove them; a finished wheel names its own", "请删除；现成的 wheel 自带其依赖"
        yield ManifestFault("runtime.requirements", what, cure)
    for key, endings in _ENDINGS.items():
        value = given[key]
        if value is not None and PurePosixPath(value).suffix not in endings:
            what = f"{value!r} does not end in {endings[0]}", f"{value!r} 不以 {endings[0]} 结尾"
            yield ManifestFault(f"runtime.{key}", what, ("name the finished file", "请指定构建好的文件"))


def _duplicates(permissions: Sequence[Permission | None]) -> Iterator[ManifestFault]:
    counted = Counter(permission.capability for permission in permissions if permission)
    for capability, times in counted.items():
        if times > 1:
            what = f"{capability!r} is asked for {times} times", f"{capability!r} 申请了 {times} 次"
            yield ManifestFault("permissions", what, ("merge them into one", "请合并为一项"))


def _apps(parts: ManifestParts) -> Iterator[ManifestFault]:
    for index, permission in enumerate(parts.permissions):
        if not isinstance(permission, AppsPermission):
            continue
        for app in permission.apps:
            if app not in parts.dependencies:
                line = f'"{app}" = ">=1,<2"'
                cure = f"add {line} under [dependencies]", f"请在 [dependencies] 下添加 {line}"
                what = f"{app} is not a dependency", f"{app} 不在依赖项中"
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
                cure = (
                    f'add it to the hosts of a permission with capability = "http": {line}',
                    f'请将它加入 capability = "http" 的权限的 hosts：{line}',
                )
                what = (
                    f"the secret {place.name!r} goes to {place.host}, which the app may not reach",
                    f"密钥 {place.name!r} 会发往 {place.host}，而应用不得访问该服务器",
                )
                yield ManifestFault(f"permissions[{index}].secrets", what, cure)
        places = Counter((place.host, (place.header or "").lower(), place.query) for place in permission.secrets)
        for (host, header, query), times in places.items():
            if times > 1:
                what = (
                    f"{times} secrets go into {header or query} of {host}",
                    f"有 {times} 个密钥放入 {host} 的 {header or query}",
                )
                yield ManifestFault(
                    f"permissions[{index}].secrets", what, ("give each its own place", "请为每个密钥指定各自的位置")
                )


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
        what = f"a textarea holds text, not a {field.type}", f"textarea 用于文本，而不是 {field.type}"
        yield ManifestFault(f"{path}.ui", what, ('write ui = "text"', '请写 ui = "text"'))
