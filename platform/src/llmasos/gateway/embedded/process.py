"""Supervises one engine: starts it at the first call, restarts it after a crash, and stops it when nobody uses it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from llmasos.errors import ModelUnavailable
from llmasos.gateway.models import Kind

CHILD = Path(__file__).with_name("child.py")

# Loading 93 MB from a cold disk on a busy machine took under 10 s; models of many gigabytes are a hundred times that.
START_SECONDS = 180.0

# A server keeps the model warm over a pause in a conversation; a laptop gets its memory back afterwards.
IDLE_SECONDS = 600.0

# After the second crash in a row it waits 2 s before another start, then 4, and so on, up to a minute.
LONGEST_PAUSE_SECONDS = 60.0
STEADY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What an engine runs."""

    name: str
    kind: Kind
    model_path: Path
    """The weights' file; for embeddings, the package's folder."""
    context_window: int = 4096
    slots: int = 4
    """Answers at once; more wait. Each has a window of its own, which costs about 90 MB with SmolLM2."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a running engine listens, and its key."""

    url: str
    key: str


class EngineProcess:
    """One engine, shared by every call of its model. Safe to use from many threads and event loops."""

    def __init__(self, spec: EngineSpec, idle_seconds: float = IDLE_SECONDS) -> None:
        self.spec = spec
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._address: Address | None = None
        self._last_words: deque[bytes] = deque(maxlen=5)
        self._users = 0
        self._used_at = time.monotonic()
        self._started_at = 0.0
        self._crashes = 0
        self._closed = threading.Event()

    @property
    def pid(self) -> int | None:
        """The engine's process, while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Address]:
        """The engine, started if need be; it is not stopped as idle meanwhile.

        Raises:
            ModelUnavailable: It does not start, or crashed too often.
        """
        with self._lock:
            self._users += 1
            address = self._address if self.pid is not None else None
        try:
            if address is None:
                address = await asyncio.to_thread(self.start)
            yield address
        finally:
            with self._lock:
                self._users -= 1
                self._used_at = time.monotonic()

    def start(self) -> Address:
        """Start it, or find it running. Blocks until it listens.

        Raises:
            ModelUnavailable: It does not start, or crashed too often.
        """
        with self._lock:
            if self._closed.is_set():
                raise ModelUnavailable(
                    f"The engine of {self.spec.name} is closed, since the host is ending.",
                    zh=f"主机正在停止，{self.spec.name} 的推理引擎已关闭。",
                )
            if self._address is not None and self.pid is not None:
                return self._address
            self._note_crash()
            return self._start()

    def warm(self) -> None:
        """Start it in the background."""

        def start() -> None:
            with contextlib.suppress(ModelUnavailable):  # the first call says it again
                self.start()

        threading.Thread(target=start, name=f"engine-{self.spec.name}", daemon=True).start()

    def failure(self) -> ModelUnavailable:
        """The error of a call whose connection to the engine broke."""
        process = self._process
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)  # a killed process closes its sockets a moment before it can be waited for
        name = self.spec.name
        if self.pid is not None:
            return ModelUnavailable(
                f"The engine of {name} broke off the answer; call it again.",
                zh=f"{name} 的推理引擎中断了回答：请重试。",
            )
        return ModelUnavailable(
            f"The engine of {name} stopped in the middle of the answer ({self._end()}); the next call starts it anew.",
            zh=f"{name} 的推理引擎在回答途中停止（{self._end()}）；下次调用会重新启动它。",
        )

    def close(self) -> None:
        """End it. Safe to call twice."""
        self._closed.set()
        with self._lock:
            self._stop()

    def _start(self) -> Address:
        key = secrets.token_urlsafe(32)
        spec = self.spec
        # A sleeping OpenMP thread costs a wake-up; a spinning one costs a core that others need.
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
        # What is in the environment of the host, keys among it, is not for native code of others.
        kept = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
        process = subprocess.Popen(
            [sys.executable, "-I", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={name: environment[name] for name in kept if name in environment},
            start_new_session=True,  # Ctrl-C is the host's to handle; it closes the engine itself
        )
        self._process, self._started_at = process, time.monotonic()
        self._last_words.clear()
        order = {
            "kind": spec.kind,
            "name": spec.name,
            "model_path": str(spec.model_path),
            "key": key,
            "slots": spec.slots,
            "context_window": spec.context_window,
        }
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for
        threading.Thread(target=self._drain, args=(process,), daemon=True).start()
        try:
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it died at once; the answer below says how
        answer = _first_line(process)
        if "port" not in answer:
            said = answer.get("error", "")
            process.kill()
            process.wait()
            why = said or self._end()
            self._forget()
            raise ModelUnavailable(
                f"The engine of {spec.name} does not start ({why}). Run `llmasos doctor`.",
                zh=f"{spec.name} 的推理引擎无法启动（{why}）。请运行 `llmasos doctor`。",
            )
        self._address = Address(f"http://127.0.0.1:{answer['port']}", key)
        threading.Thread(target=self._watch, args=(process,), daemon=True).start()
        return self._address

    def _drain(self, process: subprocess.Popen[bytes]) -> None:
        """Keep the last lines that native code printed; a full pipe would stop it."""
        assert process.stderr is not None  # noqa: S101 - a pipe was asked for
        with contextlib.suppress(ValueError, OSError), process.stderr:
            for line in process.stderr:
                self._last_words.append(line[:500])

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Stop the engine when nobody used it for a while."""
        while not self._closed.is_set() and process.poll() is None:
            with self._lock:
                idle = 0.0 if self._users else time.monotonic() - self._used_at
                if idle >= self._idle_seconds and self._process is process:
                    self._stop()
                    return
            self._closed.wait(max(self._idle_seconds - idle, 0.05))

    def _note_crash(self) -> None:
        """Count a death that nobody asked for, and hold the next start back where they follow each other.

        Raises:
            ModelUnavailable: It is too early for another start.
        """
        process = self._process
        if process is None:
            return
        lived = time.monotonic() - self._started_at
        if self._address is not None:
            self._crashes = 1 if lived > STEADY_SECONDS else self._crashes + 1
            self._address = None
        pause = 0.0 if self._crashes < 2 else min(2.0 ** (self._crashes - 1), LONGEST_PAUSE_SECONDS)
        if lived < pause:
            left = pause - lived
            raise ModelUnavailable(
                f"The engine of {self.spec.name} crashed {self._crashes} times ({self._end()}); "
                f"it is started again in {left:.0f} s.",
                zh=f"{self.spec.name} 的推理引擎已崩溃 {self._crashes} 次（{self._end()}）；{left:.0f} 秒后重新启动。",
            )
        self._close_pipes(process)

    def _end(self) -> str:
        process = self._process
        code = process.poll() if process is not None else None
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        said = b" ".join(self._last_words).decode("utf-8", "replace").split()
        return how + (f": {' '.join(said)[:200]}" if said else "")

    def _stop(self) -> None:
        process = self._process
        if process is None:
            return
        process.kill()  # it holds nothing that a gentler end would save
        process.wait()
        self._forget()

    def _forget(self) -> None:
        if self._process is not None:
            self._close_pipes(self._process)
        self._process = self._address = None

    @staticmethod
    def _close_pipes(process: subprocess.Popen[bytes]) -> None:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _first_line(process: subprocess.Popen[bytes]) -> dict[str, str]:
    """What the engine says when it is ready; nothing where it died or took too long."""
    stdout = process.stdout
    assert stdout is not None  # noqa: S101 - a pipe was asked for
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    try:
        line = stdout.readline()
    finally:
        timer.cancel()
    if not line:
        process.wait()
        return {}
    answer: dict[str, str] = json.loads(line)
    return answer
