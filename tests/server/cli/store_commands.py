"""Commands of the store in tests: in this process, and on a terminal of their own."""

import errno
import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from llmasos.bundles.testing import bundle_files, manifest_text
from llmasos.bundles.writer import write_bundle
from llmasos_server.cli.shell import app

STORAGE = '[[permissions]]\ncapability = "storage"\nreason.en = "Remembers you."\n'
OPTIONAL = '[[permissions]]\ncapability = "storage"\noptional = true\nreason.en = "Remembers you."\n'


def llmasos(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def answer(*words: str) -> Any:
    done = llmasos(*words, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def installed() -> dict[str, str]:
    return {row["app"]: row["version"] for row in answer("list")["items"]}


def problems() -> list[dict[str, str]]:
    checks = json.loads(llmasos("doctor", "--json").stdout)["checks"]
    return [check for check in checks if check["status"] == "problem"]


def take_the_terminal() -> None:
    """Make the terminal the one that Ctrl-C comes from."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a suite in the background would have it ignored
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self.parent, child = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "llmasos_server.cli", *words],
            stdin=child,
            stdout=child,
            stderr=child,
            env={**os.environ, "TERM": "dumb", "COLUMNS": "100"},
            preexec_fn=take_the_terminal,  # noqa: PLW1509  (no thread runs in the child yet)
        )
        os.close(child)
        self.seen = ""

    def wait_for(self, text: str, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < until, self.seen
            if not self._read():
                break
        assert text in self.seen, self.seen

    def _read(self) -> bool:
        assert select.select([self.parent], [], [], 60)[0], f"it says no more after: {self.seen}"
        try:
            part = os.read(self.parent, 4096)
        except OSError as error:
            assert error.errno == errno.EIO  # the other side is closed
            return False
        self.seen += part.decode(errors="replace")
        return bool(part)

    def type(self, keys: str) -> None:
        os.write(self.parent, keys.encode())

    def end(self) -> int:
        while self._read():
            pass
        os.close(self.parent)
        return self.process.wait(60)


def publish(folder: Path, binary: bytes, app_id: str, version: str, extra: str = "") -> None:
    path = folder / f"{app_id.replace('/', '-')}-{version}.llmapp"
    write_bundle(bundle_files(manifest_text(app_id, version, extra), binary), path)
    answer("publish", str(path))
