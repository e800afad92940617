"""Fakes for tests of installs: a catalog of bundle files, and a runtime that only records calls."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.version import Version

from llmasos.bundles.reader import Bundle, read_bundle
from llmasos.bundles.testing import EMPTY_COMPONENT, make_bundle
from llmasos.errors import LlmasosError, NotFound, Unavailable
from llmasos.i18n import _
from llmasos.installs.source import Candidate
from llmasos.kernel.invocation import Invocation
from llmasos.runtimes.runtime import CallOutcome, Inspection, Program


@dataclass
class Shelf:
    """A `ReleaseSource` of bundle files in a folder."""

    folder: Path
    actions: list[dict[str, Any]] | None = None
    """What bundles that are added list in `actions.json`; None: one action."""
    listed: dict[str, list[Candidate]] = field(default_factory=dict[str, list[Candidate]])
    files: dict[str, Path] = field(default_factory=dict[str, Path])

    def add(self, manifest: str, component: bytes = EMPTY_COMPONENT) -> Candidate:
        """Put a release of this manifest on the shelf."""
        path = make_bundle(self.folder, manifest, component, self.actions)
        bundle = read_bundle(path)
        candidate = Candidate(bundle.manifest.id, bundle.manifest.version, bundle.digest, bundle.manifest)
        self.files[bundle.digest] = path
        self.listed.setdefault(candidate.app_id, []).append(candidate)
        return candidate

    def read(self, digest: str) -> Bundle:
        """The bundle on the shelf."""
        return read_bundle(self.files[digest])

    def releases(self, app_id: str) -> list[Candidate]:
        """Newest first."""
        return sorted(self.listed.get(app_id, []), key=lambda c: Version(c.version), reverse=True)

    def bundle(self, digest: str) -> Path:
        """The file."""
        if digest not in self.files:
            raise NotFound(_("no bundle {digest}", digest=digest))
        return self.files[digest]


@dataclass
class NotingRuntime:
    """A `Runtime` that records what it prepares, and runs nothing."""

    imports: tuple[str, ...] = ()
    failure: LlmasosError | None = None
    prepared: list[str] = field(default_factory=list[str])
    retired: list[str] = field(default_factory=list[str])
    together: asyncio.Barrier | None = None
    """Makes concurrent installs overlap: each waits here for the others."""

    async def inspect(self, code: Path) -> Inspection:
        """The imports that the test set."""
        return Inspection(self.imports, ())

    async def is_ready(self, program: Program) -> bool:
        """Whether it was prepared."""
        return program.digest in self.prepared

    async def prepare(self, program: Program, code: Path) -> None:
        """Record it, if the code exists."""
        if self.failure is not None:
            raise self.failure
        if not await asyncio.to_thread(code.exists):
            raise Unavailable(_("{code} is not there", code=code))
        self.prepared.append(program.digest)
        if self.together is not None:
            await self.together.wait()

    async def describe(self, program: Program) -> str:
        """Nothing runs here."""
        raise Unavailable(_("this runtime runs nothing"))

    async def call(self, program: Program, invocation: Invocation, action: str, input_json: str) -> CallOutcome:
        """Nothing runs here."""
        raise Unavailable(_("this runtime runs nothing"))

    async def retire(self, installation_id: str) -> None:
        """Note it."""
        self.retired.append(installation_id)

    async def close(self) -> None:
        """Nothing to end."""
