"""Users whose commands are real processes. One of them has run `llmasos quickstart`, once for all these tests."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

LLMASOS = (sys.executable, "-m", "llmasos_server.cli")


def heed_ctrl_c() -> None:
    """Let SIGINT end the child: a suite in the background would pass on that the signal is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class User:
    """A user at a shell, with a home."""

    home: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LLMASOS_")}
        return {**kept, "LLMASOS_HOME": str(self.home), "LLMASOS_LOCALE": "en", **self.variables}

    def start(self, *words: str, cwd: Path | None = None, **more: Any) -> subprocess.Popen[str]:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        return subprocess.Popen(
            [*LLMASOS, *words],
            cwd=cwd,
            env=self.environment,
            text=True,
            preexec_fn=heed_ctrl_c,  # noqa: PLW1509 - it only sets a signal
            **streams,
        )

    def does(self, *words: str, cwd: Path | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command and check its exit code."""
        with self.start(*words, cwd=cwd) as process:
            out, err = process.communicate(timeout=1500)
        assert process.returncode == code, f"llmasos {' '.join(words)}: {process.returncode}\n{out}\n{err}"
        assert "Traceback" not in err
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def reads(self, *words: str, cwd: Path | None = None) -> Any:
        """Run a command that must succeed, and return its JSON output."""
        return json.loads(self.does(*words, "--json", cwd=cwd).stdout)


@pytest.fixture(scope="session")
def newcomer(stock: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[User, dict[str, Any]]:
    """A user who has run the quickstart, and its output."""
    with stock.home(tmp_path_factory.mktemp("newcomer") / "home") as home:
        user = User(home)
        printed = user.reads("quickstart")
    return user, printed


@pytest.fixture(scope="session")
def user(newcomer: tuple[User, dict[str, Any]]) -> User:
    return newcomer[0]


@pytest.fixture(scope="session")
def somebody() -> type[User]:
    """Makes users with homes of their own: `somebody(home)`."""
    return User
