"""Reads bundles without trusting anything in them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from llmasos.bundles import layout
from llmasos.bundles.actions import Action, ListedActions, parse_actions
from llmasos.bundles.archive import unpack
from llmasos.bundles.lock import check_lock
from llmasos.bundles.manifest import Manifest, parse_manifest
from llmasos.errors import BundleRejected, NotFound
from llmasos.i18n import _

WASM_MAGIC = b"\0asm"
COMPONENT_LAYER = b"\x0d\x00\x01\x00"


@dataclass(frozen=True, slots=True)
class Bundle:
    """The checked contents of a bundle. Only a runner parses its binary."""

    digest: str
    """SHA-256 of the file, hexadecimal."""
    size_bytes: int
    manifest: Manifest
    actions: tuple[Action, ...]
    lifecycle_events: tuple[str, ...]
    """Those that the app has a hook for, such as `@install`."""
    files: Mapping[str, bytes]
    component: bytes | None
    wheel: str | None
    """The name of the wheel, of a native app."""
    lock: str
    """The hash-pinned requirements of a native app; empty for a component."""
    readme: str
    component_digest: str
    """SHA-256 of the component; of a native app, of its wheel and lock together."""

    @property
    def actions_json(self) -> list[dict[str, Any]]:
        """The actions, in their stored form."""
        return [dict(action.raw) for action in self.actions]

    @property
    def listed_json(self) -> list[dict[str, Any]]:
        """The actions and the lifecycle events, in the form that an installed release stores."""
        return ListedActions(self.actions, self.lifecycle_events).entries

    @property
    def code(self) -> dict[str, bytes]:
        """The files that a runtime prepares: `app.wasm`, or the wheel and `requirements.txt`."""
        return {name: self.files[name] for name in code_names(self.files)}


def read_bundle(path: Path) -> Bundle:
    """Read a bundle file.

    Raises:
        NotFound: There is no such file.
        BundleRejected: It is not safe or not complete; the message has the cure.
        ManifestRejected: Its manifest is not valid.
    """
    return bundle_of(read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """Read a bundle file, up to the largest size of a bundle.

    Raises:
        NotFound: There is no such file.
        BundleRejected: It is not a regular file, is too large, or cannot be read.
    """
    try:
        # Without blocking: opening a FIFO would wait for a writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123
            told = os.fstat(file.fileno())
            if not stat.S_ISREG(told.st_mode):
                raise BundleRejected(_("{path} is not a plain file", path=path))
            data = file.read(layout.MAX_BUNDLE_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(_("there is no file {path}", path=path)) from None
    except OSError as error:
        raise BundleRejected(_("{path} cannot be read: {reason}", path=path, reason=error.strerror)) from None
    if len(data) > layout.MAX_BUNDLE_BYTES:
        raise BundleRejected(
            _(
                "{path} is over {limit_mib} MiB, more than any bundle may be",
                path=path,
                limit_mib=layout.MAX_BUNDLE_BYTES >> 20,
            ),
        )
    return data


def bundle_of(data: bytes) -> Bundle:
    """Parse the bytes of a bundle; raises as `read_bundle`."""
    files = unpack(data)
    manifest = parse_manifest(_text(files, layout.MANIFEST, layout.MAX_TEXT_BYTES))
    _check_contents(files, manifest)
    listed = parse_actions(_text(files, layout.ACTIONS, layout.MAX_ACTIONS_BYTES))
    wheel = next((name for name in files if layout.WHEEL.fullmatch(name)), None)
    lock = _text(files, layout.LOCK, layout.MAX_TEXT_BYTES) if wheel else ""
    if wheel:
        check_lock(lock)
    return Bundle(
        digest=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        manifest=manifest,
        actions=listed.actions,
        lifecycle_events=listed.lifecycle_events,
        files=MappingProxyType(files),
        component=files.get(layout.COMPONENT),
        wheel=wheel,
        lock=lock,
        readme=_text(files, layout.README, layout.MAX_TEXT_BYTES),
        component_digest=code_digest(files),
    )


def code_names(files: Mapping[str, bytes]) -> list[str]:
    """Which of a bundle's files are code."""
    return sorted(name for name in files if name in {layout.COMPONENT, layout.LOCK} or layout.WHEEL.fullmatch(name))


def code_digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 of an app's code: of the component; of a native app, of its wheel and lock together."""
    if layout.COMPONENT in files:
        return hashlib.sha256(files[layout.COMPONENT]).hexdigest()
    # The same wheel with another lock gives another environment.
    listed = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in code_names(files))
    return hashlib.sha256(listed.encode()).hexdigest()


def _text(files: Mapping[str, bytes], name: str, limit: int) -> str:
    content = files.get(name)
    if content is None:
        raise BundleRejected(
            _("the bundle has no {name}: build it again with `llmasos build`", name=name),
        )
    if len(content) > limit:
        raise BundleRejected(
            _("{name} in the bundle is over {limit_kib} KiB: shorten it", name=name, limit_kib=limit >> 10),
        )
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise BundleRejected(
            _("{name} in the bundle is not UTF-8: save it as UTF-8", name=name),
        ) from None


def _check_contents(files: Mapping[str, bytes], manifest: Manifest) -> None:
    wheels = [name for name in files if layout.WHEEL.fullmatch(name)]
    component = files.get(layout.COMPONENT)
    runtime = manifest.runtime
    if runtime.kind == "wasm" or runtime.component is not None:
        if component is None or wheels or layout.LOCK in files:
            raise BundleRejected(
                _(
                    'the bundle of a kind = "{kind}" app holds {component} and no wheel: build it again',
                    kind=runtime.kind,
                    component=layout.COMPONENT,
                ),
            )
        _check_component(component)
    elif component is not None or len(wheels) != 1 or layout.LOCK not in files:
        raise BundleRejected(
            _(
                'the bundle of a kind = "{kind}" app holds one wheel, its {lock} and no component: build it again',
                kind=runtime.kind,
                lock=layout.LOCK,
            ),
        )
    if manifest.icon is not None:
        if manifest.icon not in files:
            raise BundleRejected(
                _("the bundle lacks its icon {icon!r}: add the file, or remove icon", icon=manifest.icon),
            )
        if len(files[manifest.icon]) > layout.MAX_ICON_BYTES:
            raise BundleRejected(
                _("the icon is over {limit_kib} KiB: make it smaller", limit_kib=layout.MAX_ICON_BYTES >> 10),
            )
    known = {layout.MANIFEST, layout.ACTIONS, *code_names(files), manifest.icon}
    for name in files:
        if name not in known and not layout.TEXTS.fullmatch(name):
            raise BundleRejected(
                _("the bundle holds {name!r}, which nothing reads: leave it out", name=name),
            )


def _check_component(component: bytes) -> None:
    """Check magic and layer only: a runner parses the rest."""
    if not component.startswith(WASM_MAGIC):
        raise BundleRejected(
            _(
                "{component} in the bundle is not WebAssembly: build it again with `llmasos build`",
                component=layout.COMPONENT,
            ),
        )
    if component[4:8] != COMPONENT_LAYER:
        raise BundleRejected(
            _(
                "{component} in the bundle is a core module, not a component: `llmasos build` wraps it into one",
                component=layout.COMPONENT,
            ),
        )
