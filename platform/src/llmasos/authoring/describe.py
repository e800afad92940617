"""Reads what a built binary is in a runner: app code runs nowhere else, not even its author's."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import importlib.util
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

from llmasos.bundles.reader import code_digest
from llmasos.errors import Denied, Unavailable
from llmasos.kernel.invocation import Invocation, Json
from llmasos.runtimes.runtime import Program, Runtime, SyscallDoor
from llmasos.settings import Settings

Kind: TypeAlias = Literal["wasm", "python"]
Maker: TypeAlias = Callable[[SyscallDoor], Runtime]


class Runners:
    """The runtimes of a build, each made when it is first needed."""

    def __init__(self, makers: Mapping[str, Maker], door: SyscallDoor) -> None:
        self._makers = makers
        self._door = door
        self._made: dict[str, Runtime] = {}

    def of(self, kind: str) -> Runtime:
        """The runtime of a kind.

        Raises:
            Unavailable: This system has none for it.
        """
        if kind not in self._made:
            if kind not in self._makers:
                raise Unavailable(
                    f"This host cannot run apps of the kind {kind!r}, so it cannot read their actions.",
                    zh=f"此主机不能运行 {kind!r} 类型的应用，因此无法读取其操作。",
                )
            self._made[kind] = self._makers[kind](self._door)
        return self._made[kind]

    async def describe(self, path: Path, capabilities: frozenset[str]) -> str:
        """The actions of a component, or of a wheel with its lock beside it; what `build` calls."""
        kind: Kind = "wasm" if path.suffix == ".wasm" else "python"
        if kind == "wasm":
            code, digest = path, hashlib.sha256(path.read_bytes()).hexdigest()
        else:  # an environment is made of a folder: the wheel and its lock
            code = path.parent
            digest = code_digest({each.name: each.read_bytes() for each in sorted(code.iterdir())})
        program = Program(kind=kind, digest=digest, capabilities=capabilities, installation_id="build")
        runtime = self.of(kind)
        await runtime.prepare(program, code)
        return await runtime.describe(program)

    async def close(self) -> None:
        """End every runner."""
        made, self._made = self._made, {}
        await asyncio.gather(*(runtime.close() for runtime in made.values()))


async def closed(_invocation: Invocation, capability: str, _function: str, _arguments: list[Json]) -> Json:
    """The door of a build: nothing is granted to an app that only says what it is."""
    raise Denied(
        f"{capability} is not there while an app describes itself; call it from an action",
        zh=f"应用描述自身时不能使用 {capability}：请在操作中调用",
    )


@asynccontextmanager
async def in_runners(settings: Settings, makers: Mapping[str, Maker] | None = None) -> AsyncGenerator[Runners]:
    """Runners for a build or an inspection, until the block ends.

    Args:
        settings: Where the home is, and how large a runner may be.
        makers: The runtimes, by the kind of app; None: those of the host.
    """
    runners = Runners(makers_of(settings) if makers is None else makers, closed)
    try:
        yield runners
    finally:
        await runners.close()


def makers_of(settings: Settings) -> dict[str, Maker]:
    """The runtimes that read and prepare code here, by the kind of app."""
    # Imported here: they bring msgspec and the runner's files, which `check` and `new` never need.
    from llmasos.runtimes.component import ComponentRuntime  # noqa: PLC0415

    makers: dict[str, Maker] = {"wasm": lambda door: ComponentRuntime(settings, door)}
    if importlib.util.find_spec("llmasos.runtimes.native") is not None:
        native: Any = importlib.import_module("llmasos.runtimes.native")
        makers["python"] = lambda door: native.NativeRuntime(settings.home / "environments", door)
    return makers
