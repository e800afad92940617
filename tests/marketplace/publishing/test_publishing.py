"""Publishing to the local catalog."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from llmasos.bundles.testing import MODEL_PERMISSION, action, bundle_files, make_bundle, manifest_text
from llmasos.bundles.writer import write_bundle
from llmasos.errors import BundleRejected, ComponentRejected, Conflict, NotFound, ResourceLimit, RunnerDied
from llmasos.kernel.tables import AuditEntry
from llmasos.runtimes.runtime import Inspection, Program
from llmasos_marketplace.catalog import repository
from llmasos_marketplace.catalog.names import NamespaceReserved, NameTaken
from llmasos_marketplace.catalog.service import Catalog
from llmasos_marketplace.catalog.testing import open_catalog
from llmasos_marketplace.publishing.service import Publishing


@dataclass
class FakeRuntime:
    """A runtime whose findings the test sets. Other tests use the real one."""

    imports: tuple[str, ...] = ("llmasos:app/model@0.1.0", "llmasos:app/output@0.1.0", "wasi:clocks/wall-clock@0.2.0")
    described: str = json.dumps([action()])
    inspecting: Exception | None = None
    describing: Exception | None = None
    started: list[str] = field(default_factory=list)

    async def inspect(self, code: Path) -> Inspection:
        assert code.name == "app.wasm"
        if self.inspecting:
            raise self.inspecting
        return Inspection(self.imports, ("llmasos:app/handler@0.1.0",))

    async def prepare(self, program: Program, code: Path) -> None:
        assert program.kind == "wasm"

    async def describe(self, program: Program) -> str:
        self.started.append(program.digest)
        if self.describing:
            raise self.describing
        return self.described

    async def call(self, *_: Any) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        pass


@pytest.fixture
def catalog(tmp_path: Path, database_url: str) -> Iterator[Catalog]:
    opened = open_catalog(tmp_path / "home", database_url)
    yield opened
    opened.database.close()


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
def publishing(catalog: Catalog, runtime: FakeRuntime) -> Publishing:
    return Publishing(catalog, lambda _kind: runtime)


async def test_a_published_bundle_is_offered_with_its_manifest_and_actions(
    publishing: Publishing, catalog: Catalog, tmp_path: Path
) -> None:
    done = await publishing.publish(make_bundle(tmp_path / "made"), by="ann")
    assert (done.state, done.changed, done.app_id, done.version) == ("available", True, "acme/hello", "1.0.0")
    row = catalog.release("acme/hello", "1.0.0")
    assert row.imports[0] == "llmasos:app/model@0.1.0"
    assert row.actions == [action()]
    assert catalog.bundle(done.digest).is_file()
    assert [candidate.version for candidate in catalog.releases("acme/hello")] == ["1.0.0"]
    with catalog.database.read() as session:
        lines = [(line.event, line.user_id, line.app_id) for line in session.exec(select(AuditEntry))]
    assert lines == [("publish", "ann", "acme/hello")]


async def test_the_same_bytes_again_change_nothing(
    publishing: Publishing, runtime: FakeRuntime, tmp_path: Path
) -> None:
    path = make_bundle(tmp_path / "made")
    await publishing.publish(path, by="ann")
    again = await publishing.publish(path, by="ann")
    assert (again.changed, again.state, len(runtime.started)) == (False, "available", 1)


async def test_the_same_version_with_other_bytes_is_a_conflict(publishing: Publishing, tmp_path: Path) -> None:
    await publishing.publish(make_bundle(tmp_path / "made"), by="ann")
    other = make_bundle(tmp_path / "made", manifest_text().replace("Says hello", "Says hallo"))
    with pytest.raises(Conflict, match="raise `version`"):
        await publishing.publish(other, by="ann")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("llmasos:app/http@0.1.0", r'imports http.*capability = "http"'),
        ("other:x/http@1.0.0", "imports 'other:x/http@1.0.0', which no host offers"),
    ],
)
async def test_a_binary_that_imports_more_than_it_declares_is_refused_before_it_runs(
    publishing: Publishing, runtime: FakeRuntime, catalog: Catalog, tmp_path: Path, name: str, told: str
) -> None:
    """SECURITY C2."""
    runtime.imports += (name,)
    with pytest.raises(ComponentRejected, match=told):
        await publishing.publish(make_bundle(tmp_path / "made"), by="ann")
    assert runtime.started == []
    assert catalog.releases("acme/hello") == []
    assert list(catalog.store.digests()) == []


async def test_an_app_that_describes_other_actions_than_its_bundle_is_refused(
    publishing: Publishing, runtime: FakeRuntime, tmp_path: Path
) -> None:
    runtime.described = json.dumps([action("other")])
    with pytest.raises(ComponentRejected, match="is not what the app describes"):
        await publishing.publish(make_bundle(tmp_path / "made"), by="ann")


async def test_an_app_that_does_not_start_in_the_sandbox_is_refused(
    publishing: Publishing, runtime: FakeRuntime, tmp_path: Path
) -> None:
    runtime.describing = ResourceLimit("it used more than 64 MiB")
    with pytest.raises(ComponentRejected, match="does not start in the sandbox: it used more"):
        await publishing.publish(make_bundle(tmp_path / "made"), by="ann")


@pytest.mark.parametrize("where", ["inspecting", "describing"])
async def test_a_check_that_could_not_run_quarantines_until_it_could(
    publishing: Publishing, runtime: FakeRuntime, catalog: Catalog, tmp_path: Path, where: str
) -> None:
    setattr(runtime, where, RunnerDied("the runner died"))
    path = make_bundle(tmp_path / "made")
    done = await publishing.publish(path, by="ann")
    assert done.state == "quarantined"
    assert "could not be checked: the runner died" in done.state_reason
    assert [candidate.quarantined for candidate in catalog.releases("acme/hello")] == [True]
    setattr(runtime, where, None)
    again = await publishing.publish(path, by="ann")
    assert (again.state, again.changed) == ("available", True)
    assert catalog.releases("acme/hello")[0].quarantined is False


async def test_a_dangerous_combination_is_published_and_flagged(
    publishing: Publishing, runtime: FakeRuntime, tmp_path: Path
) -> None:
    text = manifest_text(
        extra=MODEL_PERMISSION
        + '[[permissions]]\ncapability = "storage"\nreason.en = "x"\n'
        + '[[permissions]]\ncapability = "http"\nhosts = ["*"]\nmethods = ["POST"]\nreason.en = "x"\n'
    )
    done = await publishing.publish(make_bundle(tmp_path / "made", text), by="ann")
    assert done.report is not None
    assert "danger" in [risk.level for risk in done.report.risks]


async def test_names_are_checked_against_the_catalog(publishing: Publishing, tmp_path: Path) -> None:
    await publishing.publish(make_bundle(tmp_path / "made"), by="ann")
    for app_id, error in (("acme/he11o", NameTaken), ("acme/helo", NameTaken), ("llmasos/x", NamespaceReserved)):
        if app_id == "acme/helo":
            continue  # four letters are one slip apart by nature
        with pytest.raises(error):
            await publishing.publish(make_bundle(tmp_path / "made", manifest_text(app_id)), by="ann")
    done = await publishing.publish(
        make_bundle(tmp_path / "made", manifest_text("llmasos/x")), by="llmasos", first_party=True
    )
    assert done.changed


async def test_what_is_no_bundle_is_refused_and_leaves_nothing(
    publishing: Publishing, catalog: Catalog, tmp_path: Path
) -> None:
    spoiled = tmp_path / "spoiled.llmapp"
    spoiled.write_bytes(b"PK\x03\x04" + os.urandom(200))
    with pytest.raises(BundleRejected):
        await publishing.publish(spoiled, by="ann")
    with pytest.raises(NotFound):
        await publishing.publish(tmp_path / "absent.llmapp", by="ann")
    assert list(catalog.store.digests()) == []


async def test_two_concurrent_publications_of_one_version_leave_one(
    catalog: Catalog, runtime: FakeRuntime, tmp_path: Path
) -> None:
    texts = [manifest_text(), manifest_text().replace("Says hello", "Says hallo")]
    paths = [make_bundle(tmp_path / "made", text) for text in texts]
    outcomes = await asyncio.gather(
        *(Publishing(catalog, lambda _kind: runtime).publish(path, by="ann") for path in paths * 3),
        return_exceptions=True,
    )
    assert {type(outcome).__name__ for outcome in outcomes} == {"Publication", "Conflict"}
    assert len({outcome.digest for outcome in outcomes if not isinstance(outcome, BaseException)}) == 1
    assert len(catalog.releases("acme/hello")) == 1


# One process imports everything, and forks a child for each step at which to die: every file that is opened, renamed
# or removed, every statement, every commit.
KILLER = """
import asyncio, json, os, shutil, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_publishing import FakeRuntime
from llmasos_marketplace.catalog.testing import open_catalog
from llmasos_marketplace.publishing.service import Publishing
from sqlalchemy import Engine, event
home, bundle, outcomes = Path(sys.argv[1]), Path(sys.argv[2]), []
seen, at, armed = 0, 0, False
open_catalog(home / "template").database.close()
def step(*_):
    global seen
    if armed:
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(lambda name, _: step() if name in ("open", "os.rename", "os.remove", "tempfile.mkstemp") else None)
event.listen(Engine, "before_cursor_execute", step)
event.listen(Engine, "commit", step)
for at in range(1, 1000):
    shutil.copytree(home / "template", home / str(at))
    child = os.fork()
    if child == 0:
        catalog = open_catalog(home / str(at))
        armed = True
        asyncio.run(Publishing(catalog, lambda _kind: FakeRuntime()).publish(bundle, by="ann"))
        os._exit(0)
    outcomes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    if outcomes[-1] == 0:
        break
print(json.dumps(outcomes))
"""


def test_killed_at_any_step_a_release_is_published_whole_or_not_at_all(tmp_path: Path, runtime: FakeRuntime) -> None:
    path = make_bundle(tmp_path / "made")
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path / "homes"), str(path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert len(outcomes) > 15
    assert set(outcomes[:-1]) == {-signal.SIGKILL}
    states = set()
    for at in range(1, len(outcomes) + 1):
        catalog = open_catalog(tmp_path / "homes" / str(at))
        listed = catalog.releases("acme/hello")
        states.add(len(listed))
        with catalog.database.read() as session:
            assert len(repository.app_ids(session)) == len(listed)
        for candidate in listed:
            assert catalog.store.is_sound(candidate.digest)
        again = asyncio.run(Publishing(catalog, lambda _kind: runtime).publish(path, by="ann"))
        assert again.state == "available"
        assert catalog.store.is_sound(again.digest)
        catalog.database.close()
    assert states == {0, 1}


def test_a_full_disk_publishes_nothing(tmp_path: Path) -> None:
    big = bundle_files(component=b"\0asm\x0d\x00\x01\x00" + os.urandom(300_000))
    write_bundle(big, tmp_path / "big.llmapp")
    code = (
        "import asyncio, resource, signal, sys; from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[3])\n"
        "from test_publishing import FakeRuntime\n"
        "from llmasos_marketplace.catalog.testing import open_catalog\n"
        "from llmasos_marketplace.publishing.service import Publishing\n"
        "catalog = open_catalog(Path(sys.argv[1]))\n"
        "class R(FakeRuntime):\n"
        "    async def describe(self, program):\n"
        "        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "        return self.described\n"
        "try: asyncio.run(Publishing(catalog, lambda kind: R()).publish(Path(sys.argv[2]), by='ann'))\n"
        "except OSError as e: print(e.errno)\n"
    )
    words = [
        sys.executable,
        "-c",
        code,
        str(tmp_path / "home"),
        str(tmp_path / "big.llmapp"),
        str(Path(__file__).parent),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "27"  # EFBIG
    catalog = open_catalog(tmp_path / "home")
    assert catalog.releases("acme/hello") == []
    assert list((tmp_path / "home" / "bundles").iterdir()) == []
    catalog.database.close()
