"""The store of compiled components.

A compiled file is machine code that a runner maps and runs, so only files that this host compiled are ever used: each
has a record with its size and SHA-256, which only the host writes, and a file without a record is never used. The key
is the component's digest, the engine's version and the engine's configuration. Files are put in place by rename, the
code first and then its record, so that a host that is killed at any point leaves either a complete pair or none.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from llmasos.errors import ComponentRejected, LlmasosError, Unavailable
from llmasos.i18n import Message, _
from llmasos.machine import disk_full, unwritable
from llmasos.runtimes import process
from llmasos.runtimes.frames import CompiledFrame, FrameReader, ProtocolFault, RefusedFrame
from llmasos.runtimes.prepared import PreparedEntry, locked, size_bytes
from llmasos.runtimes.runtime import Inspection
from llmasos_runner.protocol import EXIT_DISK_FULL, MAX_FRAME_BYTES, CompileTask, Start

# A Python component takes 8 s of compute and 600 MiB, and makes 40 MB. The memory limit is on addresses, of which
# the compiler's threads and allocator take more than they use.
CPU_SECONDS: Final = 120
WALL_SECONDS: Final = 180.0
MEMORY_BYTES: Final = 4 << 30
OUTPUT_BYTES: Final = 512 << 20
# Raise it when `llmasos_runner.component.engine` changes: earlier files no longer fit then.
ENGINE_CONFIGURATION: Final = 1
# The extensions that wasmtime's compiler chooses instructions by, as Linux names them; others come and go with the
# kernel's version.
_EXTENSION: Final = re.compile(r"s?sse|avx|bmi|fma$|popcnt|abm|lzcnt|atomics|fp16|fphp|pac")
# `<digest>-<engine>.cwasm` and its record; with a dot before and a random end while it is written.
_FILE: Final = re.compile(r"(?P<temporary>\.?)(?P<key>[0-9a-f]{64}-.+?)\.(cwasm|json|lock)(\..+)?")


@cache
def processor_features() -> str:
    """Return a short digest of the processor's extensions, which compiled code may use.

    A home that moved to another machine has its components compiled again there: the engine refuses code for a
    processor that can do more.
    """
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, listed = line.partition(":")
            if name.strip() in {"flags", "Features"}:
                used = sorted(set(filter(_EXTENSION.match, listed.split())))
                return hashlib.sha256(" ".join(used).encode()).hexdigest()[:8]
    return "unknown"


class CompiledRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The host's record of a compiled file."""

    size: int
    sha256: str
    imports: tuple[str, ...]
    exports: tuple[str, ...]


class CompiledStore:
    """Compiled components in a folder; several processes may share it."""

    def __init__(self, folder: Path, *, bubblewrap: bool = False) -> None:
        self._folder = folder
        self._bubblewrap = bubblewrap
        self._suffix = f"-{version('wasmtime')}-{platform.machine()}.{processor_features()}-{ENGINE_CONFIGURATION}"
        self._checked: dict[str, tuple[CompiledRecord, int, int]] = {}

    def name(self, digest: str) -> str:
        """Return the name of a component's compiled file, as a text since every invocation needs it."""
        return f"{self._folder}/{digest}{self._suffix}.cwasm"

    def path(self, digest: str) -> Path:
        """Return the same as a path."""
        return Path(self.name(digest))

    async def find(self, digest: str) -> CompiledRecord | None:
        """Return the record of a compiled file if both exist and the file is intact.

        The bytes are read once per process, and again when the file's size or time changed.
        """
        try:
            # Every invocation passes here, so this avoids pathlib and remembers checked files.
            stat = os.stat(self.name(digest))  # noqa: PTH116
            checked = self._checked.get(digest)
            if checked is not None and checked[1:] == (stat.st_size, stat.st_mtime_ns):
                return checked[0]
            path = self.path(digest)
            record = msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=CompiledRecord)
        except (OSError, msgspec.MsgspecError):
            return None
        if stat.st_size != record.size or await asyncio.to_thread(sha256_of, path) != record.sha256:
            return None
        self._checked[digest] = (record, stat.st_size, stat.st_mtime_ns)
        return record

    async def ensure(self, digest: str, code: Path) -> CompiledRecord:
        """Return the record of the compiled file of `code`, which is compiled if it is missing.

        Raises:
            ComponentRejected: It is not a component, violates the contract, or takes too much to compile.
            Unavailable: The compiled file cannot be stored.
        """
        if (record := await self.find(digest)) is None:
            try:
                async with locked(self._folder, digest):
                    record = await self.find(digest) or await self._compile(digest, code)
            except OSError as error:
                raise _unstorable(error) from error
        with suppress(OSError):
            os.utime(self.path(digest).with_suffix(".json"))  # refresh the mtime so that the collector skips it
        return record

    def entries(self) -> Iterator[PreparedEntry]:
        """The entries for the collector: compiled files with their records, and the remains of killed hosts."""
        found: dict[tuple[str, bool], list[Path]] = {}
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if (name := _FILE.fullmatch(path.name)) is not None and path.is_file():
                found.setdefault((name["key"], bool(name["temporary"])), []).append(path)
        for (key, is_temporary), paths in found.items():
            digest = key.partition("-")[0]
            whole = {".cwasm", ".json"} <= {path.suffix for path in paths} and not is_temporary
            modified = max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)
            remove = partial(_remove_files, paths)
            yield PreparedEntry(
                digest, whole and key == digest + self._suffix, modified, sum(map(size_bytes, paths)), remove
            )

    async def _compile(self, digest: str, code: Path) -> CompiledRecord:
        path = self.path(digest)
        for stale in self._folder.glob(f".{path.name}.*"):  # from a killed host: only this one compiles it
            stale.unlink(missing_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=self._folder)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w+b") as output, code.open("rb") as source:
                answer = await compile_between(source.fileno(), output.fileno(), bubblewrap=self._bubblewrap)
                size = os.fstat(output.fileno()).st_size
                await asyncio.to_thread(os.fsync, output.fileno())
            sha256 = await asyncio.to_thread(sha256_of, temporary)
            record = CompiledRecord(size, sha256, tuple(answer.imports), tuple(answer.exports))
            await asyncio.to_thread(self._publish, temporary, path, record)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name)  # noqa: PTH108 -- pathlib's is refused here, and this is one system call
        stat = path.stat()
        self._checked[digest] = (record, stat.st_size, stat.st_mtime_ns)
        return record

    def _publish(self, temporary: Path, path: Path, record: CompiledRecord) -> None:
        temporary.chmod(0o644)  # a runner may be another user
        temporary.replace(path)
        self._write_record(path.with_suffix(".json"), record)

    def _write_record(self, path: Path, record: CompiledRecord) -> None:
        handle, name = tempfile.mkstemp(prefix=f".{path.with_suffix('.cwasm').name}.", dir=self._folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.encode(record))
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _remove_files(paths: list[Path]) -> bool:
    # The record first: code without a record is never used.
    for path in sorted(paths, key=lambda path: path.suffix != ".json"):
        path.unlink(missing_ok=True)
    return True


async def compile_between(source: int, output: int, *, bubblewrap: bool = False) -> CompiledFrame:
    """Compile in a process of its own, from one descriptor to another.

    Raises:
        ComponentRejected: It cannot be compiled.
        CannotConfine: bubblewrap is required but cannot be used here.
    """
    task: CompileTask = {
        "input_fd": source, "output_fd": output,
        "cpu_seconds": CPU_SECONDS, "memory_bytes": MEMORY_BYTES, "output_bytes": OUTPUT_BYTES,
    }  # fmt: skip
    confine = {
        "profile": "compile",
        "file_bytes": OUTPUT_BYTES,
        "cpu_seconds": CPU_SECONDS,
        "memory_bytes": MEMORY_BYTES,
    }
    message: Start = {
        "t": "start", "kind": "compile", "search_path": list(process.search_path()),
        "confine": confine, "threads": 1, "compile": task,
    }  # fmt: skip
    runner = await process.start(message, descriptors=(source, output), bubblewrap=bubblewrap)
    try:
        async with asyncio.timeout(WALL_SECONDS):
            answer = await _answer(runner)
            ended = await runner.ended(within_seconds=WALL_SECONDS)
    except TimeoutError as error:
        raise ComponentRejected(
            _(
                "The component cannot be compiled: it takes more than {wall_seconds} seconds.",
                wall_seconds=f"{WALL_SECONDS:g}",
            ),
        ) from error
    finally:
        runner.kill()
        runner.connection.close()
        await runner.ended(within_seconds=0)
    match answer:
        case CompiledFrame() if ended.startswith("exit code 0"):
            return answer
        case RefusedFrame():
            raise ComponentRejected(_("The component did not pass: {reason}", reason=answer.message))
        case _ if ended.startswith(f"exit code {EXIT_DISK_FULL}"):
            raise disk_full()
        case _:
            ending = _("the compiler ended with {ended}", ended=ended)
            why = next((said for name, said in _limits_met() if name in ended), ending)
            raise ComponentRejected(_("The component cannot be compiled: {why}.", why=why))


def _unstorable(error: OSError) -> Unavailable:
    return unwritable(error) or Unavailable(_("The compiled component cannot be stored: {error}.", error=error))


def _limits_met() -> list[tuple[str, Message]]:
    """The signal with which the system ends a process at each of its limits, and what that means."""
    compute = _("it takes more than {cpu_seconds} seconds of compute", cpu_seconds=CPU_SECONDS)
    return [
        ("SIGXCPU", compute),
        ("SIGKILL", compute),
        ("SIGABRT", _("it takes more than {memory_mib} MiB of memory", memory_mib=MEMORY_BYTES >> 20)),
        ("SIGXFSZ", _("it makes more than {output_mib} MiB of code", output_mib=OUTPUT_BYTES >> 20)),
    ]


async def _answer(runner: process.Process) -> CompiledFrame | RefusedFrame | None:
    runner.connection.setblocking(False)
    loop = asyncio.get_running_loop()
    frames = FrameReader()
    received = 0
    with suppress(ConnectionError):
        while received <= MAX_FRAME_BYTES and (data := await loop.sock_recv(runner.connection, 1 << 16)):
            received += len(data)
            try:
                for message in frames.feed(data):
                    if isinstance(message, CompiledFrame | RefusedFrame):
                        return message
                    raise ProtocolFault(f"it sent {type(message).__struct_config__.tag!r}")
            except ProtocolFault as fault:
                raise ComponentRejected(
                    _("The component cannot be compiled: the compiler broke the protocol: {fault}.", fault=fault),
                ) from fault
    return None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal.

    Raises:
        LlmasosError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LlmasosError(_("{path} cannot be read: {error}.", path=path.name, error=error)) from error


def as_inspection(record: CompiledRecord) -> Inspection:
    """Return the imports and exports of the binary."""
    return Inspection(record.imports, record.exports)
