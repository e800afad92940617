"""Supervises one engine: starts it at the first call, restarts it after a crash, and stops it when it is idle."""

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
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmasos.errors import ModelUnavailable
from llmasos.gateway.models import Kind
from llmasos.i18n import _

CHILD = Path(__file__).with_name("child.py")

# Loading 93 MB from a cold disk on a busy machine took under 10 s; models of many gigabytes are a hundred times that.
START_SECONDS = 180.0

# A server keeps the model warm during a pause in a conversation; a laptop gets its memory back afterwards.
IDLE_SECONDS = 600.0

# After the second crash in a row it waits 2 s before another start, then 4, and so on, up to a minute.
LONGEST_PAUSE_SECONDS = 60.0
STEADY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """The model and parameters that an engine runs."""

    name: str
    kind: Kind
    model_path: Path
    """The weights' file; for embeddings, the package's folder."""
    context_window: int = 4096
    slots: int = 4
    """Answers at once; more wait. Each has a window of its own, which costs about 90 MB with SmolLM2."""


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a running engine, and its key."""

    url: str
    key: str


class EngineProcess:
    """One engine, shared by every call of its model. Safe to use from many threads and event loops."""

    def __init__(self, spec: EngineSpec, idle_seconds: float = IDLE_SECONDS) -> None:
        self.spec = spec
        self._idle_seconds = idle_seconds
        # Guards the fields below. Event loops take it, so nothing waits while holding it: weights load in a thread
        # of their own, and callers await the future of that start.
        self._lock = threading.Lock()
        self._start: Future[Address] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._users = 0
        self._used_at = time.monotonic()
        self._started_at = 0.0
        self._crashes = 0
        self._last_words: deque[bytes] = deque(maxlen=5)
        self._closed = threading.Event()
        self.confined = False
        """Whether the process, once it listened, gave up files, other sockets and other processes."""

    @property
    def pid(self) -> int | None:
        """The engine's process, while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Address]:
        """Return the running engine, and start it if necessary; it is not stopped as idle during the block.

        Raises:
            ModelUnavailable: It does not start, or crashed too often.
        """
        with self._lock:
            self._users += 1
        try:
            yield await asyncio.wrap_future(self._started())
        finally:
            with self._lock:
                self._users -= 1
                self._used_at = time.monotonic()

    def start(self) -> Address:
        """Start it unless it runs. Blocks until it listens.

        Raises:
            ModelUnavailable: It does not start, or crashed too often.
        """
        return self._started().result()

    def warm(self) -> None:
        """Start it in the background; a failure is reported by the first call."""
        with contextlib.suppress(ModelUnavailable):
            self._started()

    async def failure(self) -> ModelUnavailable:
        """The error of a call whose connection to the engine broke."""
        process = self._process
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                # A killed process closes its sockets shortly before it can be waited for.
                await asyncio.to_thread(process.wait, 0.5)
        name = self.spec.name
        if self.pid is not None:
            return ModelUnavailable(
                _("The engine of {name} broke off the answer; call it again.", name=name),
            )
        return ModelUnavailable(
            _(
                "The engine of {name} stopped in the middle of the answer ({end}); the next call restarts it.",
                name=name,
                end=self._end(),
            ),
        )

    def close(self) -> None:
        """End it, even in the middle of its start. Idempotent."""
        self._closed.set()
        with self._lock:
            process, self._process, self._start = self._process, None, None
        _kill(process)

    def _started(self) -> Future[Address]:
        """Return the address of the running engine, or the pending start; begins a start if there is neither."""
        with self._lock:
            if self._closed.is_set():
                raise self._closed_error()
            if self._start is None or (self._start.done() and self.pid is None):
                self._hold_back_after_crashes()
                self._start = start = Future[Address]()
                start.set_running_or_notify_cancel()  # a caller that gives up does not cancel it for the others
                threading.Thread(target=self._load, args=(start,), name=f"load-{self.spec.name}", daemon=True).start()
            return self._start

    def _load(self, start: Future[Address]) -> None:
        """Start the process and wait until its weights are loaded."""
        try:
            process = self._launch()
            with self._lock:
                previous, self._process = self._process, process
            _close_pipes(previous)
            if self._closed.is_set():  # `close` may have run before there was a process to kill
                _kill(process)
            threading.Thread(target=self._drain, args=(process,), daemon=True).start()
            address = self._address(process)
            self._used_at = self._started_at = time.monotonic()
            start.set_result(address)
        except BaseException as error:
            start.set_exception(error)
        else:
            threading.Thread(target=self._stop_when_idle, args=(process,), daemon=True).start()

    def _launch(self) -> subprocess.Popen[bytes]:
        # A sleeping OpenMP thread costs a wake-up; a spinning one costs a core that others need.
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
        # The host's environment holds keys, which third-party native code must not see.
        kept = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
        self._last_words.clear()
        return subprocess.Popen(
            [sys.executable, "-I", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={name: environment[name] for name in kept if name in environment},
            start_new_session=True,  # the host handles Ctrl-C, and closes the engine itself
        )

    def _address(self, process: subprocess.Popen[bytes]) -> Address:
        """Send a new process its spec, and wait until it listens."""
        spec, key = self.spec, secrets.token_urlsafe(32)
        order = {
            "kind": spec.kind,
            "name": spec.name,
            "model_path": str(spec.model_path),
            "key": key,
            "slots": spec.slots,
            "context_window": spec.context_window,
        }
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for
        with contextlib.suppress(BrokenPipeError, ValueError):  # it died immediately; the reply below says how
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
        reply = _first_line(process)
        if "port" in reply:
            self.confined = bool(reply.get("confined"))
            return Address(f"http://127.0.0.1:{reply['port']}", key)
        why = reply.get("error") or self._end()
        with self._lock:
            if self._process is process:
                self._process = None
        _kill(process)
        if self._closed.is_set():
            raise self._closed_error()
        raise ModelUnavailable(
            _("The engine of {spec} does not start ({why}). Run `llmasos doctor`.", spec=spec.name, why=why),
        )

    def _closed_error(self) -> ModelUnavailable:
        return ModelUnavailable(
            _("The engine of {spec} is closed, since the host is stopping.", spec=self.spec.name),
        )

    def _drain(self, process: subprocess.Popen[bytes]) -> None:
        """Keep the last lines of native code's output; a full pipe would block it."""
        assert process.stderr is not None  # noqa: S101 - a pipe was asked for
        with contextlib.suppress(ValueError, OSError), process.stderr:
            for line in process.stderr:
                self._last_words.append(line[:500])

    def _stop_when_idle(self, process: subprocess.Popen[bytes]) -> None:
        """Stop the engine once no call has used it for a while."""
        while not self._closed.is_set() and process.poll() is None:
            with self._lock:
                idle = 0.0 if self._users else time.monotonic() - self._used_at
                stops = idle >= self._idle_seconds and self._process is process
                if stops:
                    self._process = self._start = None
            if stops:
                _kill(process)
                return
            self._closed.wait(max(self._idle_seconds - idle, 0.05))

    def _hold_back_after_crashes(self) -> None:
        """Count the crash of a running engine, and delay the next start if crashes follow each other.

        Raises:
            ModelUnavailable: It is too early for another start.
        """
        if self._process is None:
            return
        lived = time.monotonic() - self._started_at
        if self._start is not None:
            self._start = None
            self._crashes = 1 if lived > STEADY_SECONDS else self._crashes + 1
        pause = 0.0 if self._crashes < 2 else min(2.0 ** (self._crashes - 1), LONGEST_PAUSE_SECONDS)
        if lived < pause:
            left = pause - lived
            raise ModelUnavailable(
                _(
                    "The engine of {spec} crashed {crashes} times ({end}); it restarts in {left:.0f} s.",
                    spec=self.spec.name,
                    crashes=self._crashes,
                    end=self._end(),
                    left=left,
                ),
            )

    def _end(self) -> str:
        process = self._process
        code = process.poll() if process is not None else None
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        said = b" ".join(self._last_words).decode("utf-8", "replace").split()
        return how + (f": {' '.join(said)[:200]}" if said else "")


def _kill(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        process.kill()  # it holds nothing that a gentler end would save
        process.wait()
        _close_pipes(process)


def _close_pipes(process: subprocess.Popen[bytes] | None) -> None:
    for pipe in (process.stdin, process.stdout) if process is not None else ():
        if pipe is not None:
            with contextlib.suppress(OSError, ValueError):
                pipe.close()


def _first_line(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The line that the engine prints when it is ready; empty if it died or took too long."""
    stdout = process.stdout
    assert stdout is not None  # noqa: S101 - a pipe was asked for
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    try:
        line = stdout.readline()
    except ValueError:  # closed in the meantime
        line = b""
    finally:
        timer.cancel()
    if not line:
        process.wait()
        return {}
    reply: dict[str, Any] = json.loads(line)
    return reply
