"""Installs with the real runtime: a confined runner reads and compiles the component."""

import shutil
from pathlib import Path

import pytest
from sqlmodel import SQLModel

import llmasos.tables  # noqa: F401
from llmasos.bundles.testing import MODEL_PERMISSION, manifest_text
from llmasos.database.engine import Database
from llmasos.errors import ComponentRejected
from llmasos.installs.code import CodeStore
from llmasos.installs.current import InstalledApps
from llmasos.installs.doctor import check
from llmasos.installs.installer import Installer
from llmasos.installs.resolve import parse_requirement
from llmasos.installs.service import ConsentAnswers
from llmasos.installs.testing import Shelf
from llmasos.runtimes.component import ComponentRuntime
from llmasos.settings import Settings

STORAGE = '[[permissions]]\ncapability = "storage"\nreason.en = "x"\n'


async def test_the_runner_reads_what_a_component_imports_and_an_undeclared_one_is_refused(
    tmp_path: Path, python_component: Path, compiled_home: Path
) -> None:
    shutil.copytree(compiled_home / "compiled", tmp_path / "compiled")  # compiling takes 6 s, and other tests cover it
    component = python_component.read_bytes()
    (tmp_path / "shelf").mkdir()
    shelf = Shelf(tmp_path / "shelf")
    shelf.add(manifest_text("acme/liar", extra=MODEL_PERMISSION), component)
    shelf.add(manifest_text("acme/honest", extra=STORAGE + MODEL_PERMISSION), component)
    shelf.add(manifest_text("acme/broken", extra=STORAGE), b"\0asm\x0d\0\1\0" + b"\xff" * 40)

    async def handler(*_call: object) -> None:
        raise AssertionError("nothing runs here")

    runtime = ComponentRuntime(Settings(home=tmp_path, runners=1), handler)
    try:
        with Database(f"sqlite:///{tmp_path / 'llmasos.db'}") as database:
            SQLModel.metadata.create_all(database.engine)
            installer = Installer(database, shelf, CodeStore.in_home(tmp_path), lambda _kind: runtime, "0.1.0")

            async def install(app: str) -> None:
                planned = installer.plan_install("w", parse_requirement(app))
                await installer.carry_out(planned, ConsentAnswers(agreed=True), "ann")

            with pytest.raises(ComponentRejected, match="imports storage, which its manifest does not declare"):
                await install("acme/liar")
            with pytest.raises(ComponentRejected):
                await install("acme/broken")
            await install("acme/honest")
            found = InstalledApps(database, CodeStore.in_home(tmp_path)).runnable("w", "acme/honest")
            assert set(found.app.grants) == {"model", "storage"}
            with database.read() as session:
                assert check(session, tmp_path) == []
    finally:
        await runtime.close()
