"""11-S16: a downloaded project is not trusted: building it reads nothing but its own plain files."""

import os
import re
from pathlib import Path

import pytest

from llmasos.authoring.build import build
from llmasos.authoring.native import lock
from llmasos.authoring.process import BuildFailed
from llmasos.authoring.project import LOCK_IN_PROJECT, open_project, source_files
from llmasos.bundles.reader import read_bytes
from llmasos.bundles.testing import manifest_text
from llmasos.errors import BundleRejected, LlmasosError
from llmasos.uv import configuration


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "app.py").write_text("from llmasos_sdk import App\n\napp = App()\n")
    (root / "llmapp.toml").write_text(manifest_text(extra="").replace('kind = "wasm"', 'kind = "python"'))
    (root / "README.md").write_text("# Hello\n")
    (tmp_path / "secret").write_text("the user's own")
    return root


async def describe(_path: Path, _capabilities: frozenset[str], _kind: str) -> str:
    raise AssertionError("the build went on")


@pytest.mark.parametrize("name", ["README.md", "README.zh.md", "NOTICE", "llmapp.toml", "app.py", "icon.svg"])
async def test_a_link_out_of_the_project_is_not_published(project: Path, name: str) -> None:
    """11-S16: a README, a NOTICE or an icon that was a link put any file of its reader into the bundle."""
    (project / name).unlink(missing_ok=True)
    (project / name).symlink_to("../secret")
    if name == "icon.svg":
        manifest = project / "llmapp.toml"
        manifest.write_text(manifest.read_text().replace("[name]", 'icon = "icon.svg"\n[name]', 1))
    with pytest.raises(BuildFailed, match="is a link to a place outside"):
        await build(project, describe=describe)


def test_a_linked_module_is_not_source(project: Path) -> None:
    """11-S16."""
    (project / "helper.py").symlink_to("../secret")
    with pytest.raises(BuildFailed, match="is a link to a place outside"):
        list(source_files(project))


def test_a_link_within_the_project_is_read(project: Path) -> None:
    (project / "words.txt").symlink_to("README.md")
    assert {path.name for path in source_files(project)} >= {"words.txt", "app.py"}


@pytest.mark.parametrize("name", ["README.md", "NOTICE", "llmapp.toml"])
async def test_a_folder_in_place_of_a_file_is_named(project: Path, name: str) -> None:
    """11-S16, its kind: "[Errno 21] Is a directory: 6"."""
    (project / name).unlink(missing_ok=True)
    (project / name).mkdir()
    with pytest.raises(BuildFailed, match=f"{name} is not a plain file"):
        await build(project, describe=describe)


def test_a_link_to_itself_is_named(project: Path) -> None:
    """11-S16, its kind: "Symlink loop from …", as an internal error."""
    (project / "me").symlink_to("me")
    with pytest.raises(BuildFailed, match="leads to itself: remove it"):
        list(source_files(project))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (b"\xff\xfe.txt", r"\\xff\\xfe.txt is not UTF-8"),
        (b"a\nb.txt", r"has U\+000A"),
        (b"\x1b[2Ja.txt", r"has U\+001B"),
        ("a\u202eb.txt".encode(), r"has U\+202E"),
        (b"a:b", "has :"),
        (b"a\\b", r"has \\"),
        (b"a.", "a dot or a space at an end"),
        ("e\u0301.txt".encode(), "composed form"),
    ],
)
def test_a_file_whose_name_no_bundle_holds_is_named_with_the_cure(project: Path, name: bytes, said: str) -> None:
    """11-S16, its kind: `check` found no problems, and `build` ended in an internal error or said to build again."""
    with open(os.fsencode(project) + b"/" + name, "wb"):  # noqa: PTH123 - the name is no text
        pass
    with pytest.raises(BuildFailed, match=f"{said}.*: rename it") as refused:
        list(source_files(project))
    assert refused.value.message.isprintable()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["README.md", "NOTICE", "llmapp.toml"])
async def test_a_fifo_in_a_project_does_not_hang_the_build(project: Path, name: str) -> None:
    """11-S16: opening it waited for a writer for ever."""
    (project / name).unlink(missing_ok=True)
    os.mkfifo(project / name)
    with pytest.raises(BuildFailed, match="is not a plain file"):
        await build(project, describe=describe)


@pytest.mark.timeout(20)
def test_a_fifo_is_not_a_bundle(tmp_path: Path) -> None:
    """11-S16: `inspect` and `publish` hung at it."""
    os.mkfifo(tmp_path / "app.llmapp")
    with pytest.raises(BundleRejected, match="not a plain file"):
        read_bytes(tmp_path / "app.llmapp")


def test_a_projects_uv_configuration_does_not_steer_its_lock(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """11-S16: a `uv.toml` in the project, or above it, named the index that packages come from."""
    for folder in (project, project.parent):
        (folder / "uv.toml").write_text("this is not TOML that uv takes = = =\n")
    monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(LlmasosError) as raised:
        lock(project, ["a-package-that-nobody-has-published-anywhere"])
    assert "uv.toml" not in str(raised.value)
    assert not (project / LOCK_IN_PROJECT).exists()


def test_the_users_own_uv_configuration_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV_CONFIG_FILE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("llmasos.uv._SYSTEM_WIDE", tmp_path / "none")
    assert configuration() == ["--no-config"]
    (tmp_path / "uv").mkdir()
    (tmp_path / "uv" / "uv.toml").write_text("")
    assert configuration() == ["--config-file", str(tmp_path / "uv" / "uv.toml")]
    monkeypatch.setenv("UV_CONFIG_FILE", "chosen.toml")
    assert configuration() == []


def test_a_lock_that_is_a_link_is_not_written_through(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """11-S16: uv writes through a link that stands where the lock belongs."""
    pinned = f"idna==3.20 --hash=sha256:{'0' * 64}\n"
    (project / LOCK_IN_PROJECT).symlink_to("../secret")
    monkeypatch.setattr("llmasos.authoring.packages._compiled", lambda _wanted, _made: pinned)
    with pytest.raises(BuildFailed, match="is a link to a place outside"):
        lock(project, ["idna"])
    assert (tmp_path / "secret").read_text() == "the user's own"
    (project / LOCK_IN_PROJECT).unlink()
    assert lock(project, ["idna"]) == pinned
    assert re.match("idna==3.20", (project / LOCK_IN_PROJECT).read_text())


def test_a_byte_order_mark_is_no_part_of_a_manifest(project: Path) -> None:
    """11-21: editors on Windows write one."""
    manifest = project / "llmapp.toml"
    manifest.write_bytes(b"\xef\xbb\xbf" + manifest.read_bytes())
    assert open_project(project).manifest.id == "acme/hello"
