"""Runs a change of installations once for each of its steps, and dies by SIGKILL at that step.

Run by test_kill_at_every_step.py in a process of its own, since it forks. A step is a file operation in the home, or
the time before or after a statement or commit of the database.

usage: kill_at_every_step.py FOLDER CHANGE
"""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlmodel import SQLModel

import llmasos.tables  # noqa: F401
from llmasos.bundles.testing import MODEL_PERMISSION, manifest_text
from llmasos.database.engine import Database
from llmasos.installs import repository
from llmasos.installs.code import CodeStore
from llmasos.installs.doctor import check
from llmasos.installs.installer import Installer
from llmasos.installs.resolve import parse_requirement
from llmasos.installs.service import ConsentAnswers
from llmasos.installs.testing import NotingRuntime, Shelf
from llmasos.kernel.audit import verify
from llmasos.runtimes.compiled import CompiledStore

FILE_EVENTS = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.utime", "os.chmod", "sqlite3.connect"}
STORAGE = '[[permissions]]\ncapability = "storage"\nreason.en = "x"\n'
LIMIT = "[limits]\ntokens_per_day = 5\n"
YES = ConsentAnswers(agreed=True)


class Home:
    """A host's state in a folder."""

    def __init__(self, folder: Path, shelf: Shelf) -> None:
        self.folder = folder
        self.database = Database(f"sqlite:///{folder / 'llmasos.db'}")
        self.installer = Installer(
            self.database, shelf, CodeStore.in_home(folder), lambda _kind: NotingRuntime(), "0.1.0"
        )

    async def install(self, text: str) -> None:
        await self.installer.carry_out(self.installer.plan_install("w", parse_requirement(text)), YES, "ann")

    async def upgrade(self, answers: ConsentAnswers) -> None:
        planned = self.installer.plan_upgrade("w", parse_requirement("acme/hello"))
        await self.installer.carry_out(planned, answers, "ann")

    async def uninstall(self) -> None:
        await self.installer.uninstall("w", "acme/hello", "ann", delete_data=True)

    def states(self) -> dict[str, str]:
        with self.database.read() as session:
            found = repository.installation(session, "w", "acme/hello")
            return {r.version: r.state for r in repository.releases(session, found.id)} if found else {}

    def faults(self) -> list[str]:
        with self.database.read() as session:
            intact = verify(session).intact
            return [str(finding) for finding in check(session, self.folder)] + ([] if intact else ["audit"])


async def nothing(_home: Home) -> None:
    """Prepare nothing: the change starts from an empty home."""


async def first(home: Home) -> None:
    await home.install("acme/hello@1.0.0")


async def first_two(home: Home) -> None:
    await first(home)
    await home.upgrade(YES)


Step = Callable[[Home], Awaitable[Any]]
# The initial state, the change, and its two states, between which no other may be visible.
CHANGES: dict[str, tuple[Step, Step]] = {
    "install": (nothing, first),
    "upgrade": (first, lambda home: home.upgrade(YES)),
    "wait": (first, lambda home: home.upgrade(ConsentAnswers())),
    "rollback": (first_two, lambda home: home.installer.rollback("w", "acme/hello", "ann")),
    "uninstall": (first_two, lambda home: home.uninstall()),
}


def leave_unneeded(home: Path) -> None:
    """Prepared code of a release that is no longer installed, which every change removes."""
    digest = "0" * 64
    (home / "compiled").mkdir()
    store = CompiledStore(home / "compiled")
    (home / "code" / digest).mkdir(parents=True)
    for path in (store.path(digest), store.path(digest).with_suffix(".json"), home / "code" / digest / "app.wasm"):
        path.write_bytes(b"x")
        os.utime(path, (0, 0))
    os.utime(home / "code" / digest, (0, 0))


class Countdown:
    """Kills the process at the n-th step."""

    def __init__(self, steps: int, home: Home) -> None:
        self.left = steps
        self.folder = str(home.folder)
        for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
            event.listen(home.database.engine, name, lambda *_: self.step())
        sys.addaudithook(self.audited)

    def audited(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name in FILE_EVENTS and any(isinstance(a, str | Path) and self.folder in str(a) for a in arguments):
            self.step()

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def dies_at(steps: int, folder: Path, shelf: Shelf, change: Step) -> bool:
    """Run the change in a child, and return whether it was killed before it ended."""
    child = os.fork()
    if child == 0:
        home = Home(folder, shelf)
        Countdown(steps, home)
        asyncio.run(change(home))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert status == 0, f"the change failed with {status}"
    return False


def main(folder: Path, name: str) -> None:
    """Print how many steps were killed at."""
    before, change = CHANGES[name]
    (folder / "shelf").mkdir()
    shelf = Shelf(folder / "shelf")
    shelf.add(manifest_text("acme/hello", "1.0.0", MODEL_PERMISSION + LIMIT))
    shelf.add(manifest_text("acme/hello", "2.0.0", MODEL_PERMISSION + STORAGE + LIMIT))
    template = Home(folder / "template", shelf)
    template.folder.mkdir()
    SQLModel.metadata.create_all(template.database.engine)
    asyncio.run(before(template))
    start = template.states()
    template.database.close()
    leave_unneeded(template.folder)
    shutil.copytree(template.folder, folder / "done")
    done = Home(folder / "done", shelf)
    asyncio.run(change(done))
    assert not [path for path in done.folder.rglob("0" * 64 + "*") if name != "wait"]
    end = done.states()
    done.database.close()
    assert start != end
    seen, steps = set(), 0
    while True:
        steps += 1
        copy = folder / f"home-{steps}"
        shutil.copytree(template.folder, copy)
        killed = dies_at(steps, copy, shelf, change)
        home = Home(copy, shelf)
        assert home.states() in (start, end), f"step {steps}: {home.states()}"
        assert home.faults() == [], f"step {steps}: {home.faults()}"
        seen.add(home.states() == end)
        if home.states() == start:
            asyncio.run(change(home))  # running the command again completes the change
            assert home.states() == end
            assert home.faults() == []
        home.database.close()
        shutil.rmtree(copy)
        if not killed:
            break
    assert seen == {True, False}
    print(steps - 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
