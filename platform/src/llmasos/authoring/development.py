"""An author's project as a host runs it: without a bundle, a version or an installation, and with a store of its own.

It has what its manifest asks for. What it runs in is what an installed app runs in: the same runners, kernel, quotas
and audit. Of a component's source, only the interpreter is built, once; the source goes to it with each call.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

from typing_extensions import override

from llmasos.authoring import build, javascript, python, wrap
from llmasos.authoring.native import build_native
from llmasos.authoring.project import Project, open_project, source_files
from llmasos.bundles import layout
from llmasos.bundles.actions import parse_actions
from llmasos.bundles.parts import Permission
from llmasos.bundles.reader import code_digest
from llmasos.database.engine import Database
from llmasos.database.transaction import Transaction
from llmasos.gateway.gateway import Gateway
from llmasos.host import HostParts
from llmasos.installs.code import CodeStore
from llmasos.installs.current import InstalledApps, run_limits
from llmasos.installs.form import config_values
from llmasos.installs.plan import program_of
from llmasos.invocations.run import Runnable
from llmasos.kernel.invocation import InstalledApp
from llmasos.plugins import Plugins
from llmasos.runtimes.kinds import Runtimes
from llmasos.runtimes.runtime import Program, SyscallHandler
from llmasos.runtimes.source import SourceRuntime
from llmasos.settings import Settings

# No app's id has a tilde: what a project stores, and its secrets, are apart from those of the installed app.
SUFFIX: Final = "~dev"
# A larger source is built into its component, since the source is sent to the runner with each call.
MAX_HANDED_BYTES: Final = 2 << 20


@dataclass(frozen=True, slots=True)
class _Code:
    """What a runtime prepares, and the source that is sent with each call if it is not built in."""

    path: Path
    digest: str
    source: str | None = None


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The project as it is now."""

    runnable: Runnable
    code: _Code


class DevelopedApp:
    """A project that a host runs. Make it, open a host with its `parts`, and `load` it, again after each change."""

    def __init__(self, path: Path, settings: Settings, config: Mapping[str, Any] | None) -> None:
        """Nothing is built yet.

        Args:
            path: The project's folder.
            settings: Of the host.
            config: Values of the app's form; defaults stand for those left out. None if no action will be run.
        """
        self.path: Final = path
        self._settings = settings
        self._config = config
        self._loaded: _Loaded | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="llmasos-development-")
        root = (path.parent if path.name == layout.MANIFEST else path).resolve()
        self.installation_id = f"project-{hashlib.sha256(str(root).encode()).hexdigest()[:24]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._folder.cleanup()

    @property
    def runnable(self) -> Runnable:
        """The project as it was last loaded."""
        return self._require().runnable

    @property
    def code(self) -> Path:
        """What its runtime prepares."""
        return self._require().code.path

    def parts(self, gateway: Callable[[Settings, Database, Plugins], Gateway] | None = None) -> HostParts:
        """The parts of a host that runs the project beside what is installed.

        Args:
            gateway: Opens the models; the host's own way if it is left out.
        """
        return HostParts(
            installed=lambda database, code: _WithProject(database, code, self),
            runtimes={"wasm": self.components},
            gateway=gateway,
        )

    def components(self, handler: SyscallHandler) -> SourceRuntime:
        """The runtime of components that runs the project and what is installed."""
        return SourceRuntime(self._settings, handler, self._source_of)

    async def load(self, runtimes: Runtimes) -> Runnable:
        """Take the project as it is now.

        Args:
            runtimes: Of a host that was opened with `parts`; or others that have `components`.

        Raises:
            LlmasosError: It has faults, does not build, or describes no actions.
        """
        project = open_project(self.path)
        manifest = project.manifest
        code = await self._build(project)
        program = program_of(manifest, code.digest, self.installation_id)
        app = InstalledApp(
            id=manifest.id + SUFFIX,
            version=manifest.version,
            installation_id=self.installation_id,
            grants=MappingProxyType({each.capability: each for each in manifest.permissions}),
            declared=manifest.capabilities,
            config=MappingProxyType({} if self._config is None else config_values(manifest, self._config)),
        )
        limits = run_limits(manifest.limits)
        before = self._loaded
        self._loaded = _Loaded(Runnable(app, program, {}, limits), code)
        try:
            runtime = runtimes.of(program.kind)
            await runtime.prepare(program, code.path)
            listed = parse_actions(await runtime.describe(program))
        except BaseException:
            self._loaded = before
            raise
        actions = {action.name: action for action in listed.actions}
        runnable = Runnable(app, program, actions, limits, frozenset(listed.lifecycle_events))
        self._loaded = _Loaded(runnable, code)
        return runnable

    async def _build(self, project: Project) -> _Code:
        runtime = project.manifest.runtime
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        if runtime.kind == "wasm":
            if runtime.component is not None:
                binary = project.file(runtime.component, "component")
                content = await wrap.component_of(binary, project.manifest.capabilities, folder)
            elif _is_small(source := build.source_of(project)):
                return await _interpreted(project, source, folder)
            else:
                content = await build.component_from_source(project, folder)
            path = folder / layout.COMPONENT
            path.write_bytes(content)
            return await _component(path)
        native = await asyncio.to_thread(build_native, project.root, project.manifest)
        files = {native.wheel_name: native.wheel, layout.LOCK: native.lock.encode()}
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return _Code(folder, code_digest(files))

    def _source_of(self, program: Program) -> str | None:
        return self._loaded.code.source if self._loaded and program.installation_id == self.installation_id else None

    def _require(self) -> _Loaded:
        if self._loaded is None:
            raise RuntimeError("the project is not loaded")
        return self._loaded


def _is_small(source: Path) -> bool:
    return sum(path.stat().st_size for path in source_files(source.parent)) <= MAX_HANDED_BYTES


async def _interpreted(project: Project, source: Path, folder: Path) -> _Code:
    """The component that a source is handed to, and the source."""
    staged = folder / "staged"
    staged.mkdir()
    await build.stage_packages(project, source, staged)
    capabilities = project.manifest.capabilities
    if source.suffix == ".py":
        own = python.stage_development(source, capabilities, staged)
        handed = python.handed_source(source, own)
    else:
        handed = await javascript.stage_development(source, capabilities, staged)
    digest = await asyncio.to_thread(build.digest_of, staged, build.tool_of(source))
    component = await build.built(staged, digest, source)
    shutil.rmtree(staged)
    return await _component(component, json.dumps(handed, ensure_ascii=False))


async def _component(path: Path, source: str | None = None) -> _Code:
    content = await asyncio.to_thread(path.read_bytes)
    return _Code(path, hashlib.sha256(content).hexdigest(), source)


class _WithProject(InstalledApps):
    """What is installed, and a project."""

    def __init__(self, database: Database, code: CodeStore, project: DevelopedApp) -> None:
        super().__init__(database, code)
        self._project = project

    @override
    def still(self, installations: frozenset[str]) -> frozenset[str]:
        return super().still(installations) | (installations & {self._project.installation_id})

    @override
    def runnable(self, workspace: str, app_id: str) -> Runnable:
        return self._project.runnable if app_id.endswith(SUFFIX) else super().runnable(workspace, app_id)

    @override
    def grant(self, installation_id: str, capability: str) -> Permission | None:
        if installation_id == self._project.installation_id:
            return self._project.runnable.app.grants.get(capability)
        return super().grant(installation_id, capability)

    @override
    def check_installed(self, transaction: Transaction, installation_id: str) -> None:
        if installation_id != self._project.installation_id:
            super().check_installed(transaction, installation_id)

    @override
    def code(self, found: Runnable) -> Path:
        is_project = found.app.installation_id == self._project.installation_id
        return self._project.code if is_project else super().code(found)
