"""11-S2: packages of an app that are hostile, from an index that is hostile: nothing escapes, nothing stays."""

import asyncio
import hashlib
import io
import os
import stat
import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import QuietHandler, serving

from llmasos.errors import AppFailed, LlmasosError, Unavailable
from llmasos.i18n import render
from llmasos.runtimes import building, packages
from llmasos.runtimes.building import WroteTooMuch, base_python, build_step
from llmasos.runtimes.collection import ENVIRONMENTS, collect
from llmasos.runtimes.confinement import confinement
from llmasos.runtimes.environments import wheel_folder
from llmasos.runtimes.packages import install_locked
from llmasos.runtimes.prepared import size_bytes
from llmasos.runtimes.wheels import WheelStore

confined = pytest.mark.skipif(confinement().missing is not None, reason="this system cannot confine what installs")
PLAIN = {"evil.py": b"x = 1\n"}


def wheel_of(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A wheel; a name may stand twice in `files` if it differs in what `writestr` takes."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr("evil-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
        archive.writestr("evil-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("evil-1.0.dist-info/RECORD", "")
    return made.getvalue()


def special(kind: int) -> bytes:
    """A wheel with a link or a device."""
    made = io.BytesIO(wheel_of(PLAIN))
    with zipfile.ZipFile(made, "a") as archive:
        entry = zipfile.ZipInfo("inside")
        entry.external_attr = (kind | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    return made.getvalue()


def twice() -> bytes:
    made = io.BytesIO(wheel_of(PLAIN))
    with zipfile.ZipFile(made, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("evil.py", b"x = 2\n")
    return made.getvalue()


def says_less_than_it_holds() -> bytes:
    """Its directory and its header say that the file has 5 bytes; it inflates to 5 MB."""
    wheel = bytearray(wheel_of({"evil.py": bytes(5_000_000)}, zipfile.ZIP_DEFLATED))
    for magic, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", wheel, wheel.index(magic) + at, 5)
    return bytes(wheel)


def many(count: int) -> bytes:
    """Entries without end: the file's end says how many there are, modulo 65,536."""
    return wheel_of({f"evil/{number}.py": b"" for number in range(count)})


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    return folder


def locked(wheel: bytes, name: str = "evil") -> str:
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(wheel).hexdigest()}\n"


async def install(wheel: bytes, index: Path, tmp_path: Path) -> Path:
    (index / "evil-1.0-py3-none-any.whl").write_bytes(wheel)
    target = tmp_path / "packages"
    target.mkdir(exist_ok=True)
    await install_locked(locked(wheel), target, tmp_path / "wheels")
    return target


@pytest.mark.parametrize(
    ("wheel", "said"),
    [
        (lambda: wheel_of({"zeros.bin": bytes(64 << 20)}, zipfile.ZIP_DEFLATED), "take more than"),
        (lambda: special(stat.S_IFLNK), "a link or a device"),
        (lambda: special(stat.S_IFIFO), "a link or a device"),
        (lambda: special(stat.S_IFCHR), "a link or a device"),
        (twice, "mean the same file"),
        (lambda: wheel_of({**PLAIN, "Evil.py": b""}), "mean the same file"),
        (lambda: wheel_of({**PLAIN, "EVIL.PY/inner.py": b""}), "mean the same file"),
        (lambda: wheel_of({**PLAIN, "evil.py/inner.py": b""}), "mean the same file"),
        (lambda: wheel_of({"caf\u00e9.py": b"", "cafe\u0301.py": b""}), "mean the same file"),
        (lambda: wheel_of({"../outside.py": b""}), "leads out of it"),
        (lambda: wheel_of({"/outside.py": b""}), "leads out of it"),
        (lambda: wheel_of({"evil/../../outside.py": b""}), "leads out of it"),
        (lambda: wheel_of({"evil-1.0.data/purelib/../../../outside.py": b""}), "leads out of it"),
        (lambda: wheel_of({"evil-1.0.data/platlib//outside.py": b""}), "leads out of it"),
        (lambda: wheel_of({"C:outside.py": b""}), "leads out of it"),
        (lambda: wheel_of({"..\\outside.py": b""}), "leads out of it"),
        (lambda: wheel_of({"evil\x1b[2J.py": b""}), "leads out of it"),
        (lambda: wheel_of({f"{'a/' * 40}deep.py": b""}), "leads out of it"),
        (lambda: wheel_of({"n" * 600: b""}), "leads out of it"),
        (says_less_than_it_holds, "damaged"),
        (lambda: wheel_of(PLAIN) + b"more", "damaged"),
        (lambda: b"before" + wheel_of(PLAIN), "damaged"),
        (lambda: many(66_000), "damaged"),
        (lambda: b"no zip at all", "damaged"),
    ],
)
async def test_a_hostile_wheel_is_refused(wheel, said, tmp_path):
    """11-S2: by the strict reader, confined as it is for every app."""
    content = wheel()
    folder, target = tmp_path / "scratch", tmp_path / "packages"
    folder.mkdir()
    target.mkdir()
    digest = hashlib.sha256(content).hexdigest()
    (folder / digest).write_bytes(content)
    with pytest.raises(AppFailed) as raised:
        await packages._unpack([{"name": "evil-1.0-py3-none-any.whl", "url": "", "sha256": digest}], folder, target)
    assert said in render(raised.value.message, "en")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["packages", "scratch"]


async def test_a_refused_wheel_leaves_nothing(index, tmp_path):
    """11-S2: neither the wheel, nor what it unpacks to, nor a copy in a cache."""
    with pytest.raises(AppFailed, match="take more than"):
        await install(wheel_of({"zeros.bin": bytes(64 << 20)}, zipfile.ZIP_DEFLATED), index, tmp_path)
    assert list((tmp_path / "wheels").iterdir()) == []
    assert size_bytes(tmp_path / "packages") < 10_000


async def test_a_wheel_with_many_files_is_refused(index, tmp_path, monkeypatch):
    """11-S2."""
    monkeypatch.setattr(packages, "_MAX_FILES", 1000)
    with pytest.raises(AppFailed, match="take more than"):
        await install(many(1500), index, tmp_path)
    assert size_bytes(tmp_path / "wheels") < 10_000


async def test_what_an_installer_would_run_or_put_elsewhere_is_not_installed(index, tmp_path):
    """11-S2, SECURITY C5: nothing runs, no script is made, and no file leaves the folder."""
    target = await install(
        wheel_of(
            {
                **PLAIN,
                "evil.pth": b"import os; os.system('touch ran')",
                "evil-1.0.data/scripts/ls": b"#!/bin/sh\ntouch ran\n",
                "evil-1.0.data/data/etc/passwd": b"root::0:0\n",
                "evil-1.0.data/headers/evil.h": b"",
                "evil-1.0.data/purelib/inner.py": b"",
                "evil-1.0.dist-info/entry_points.txt": b"[console_scripts]\n../../ls = evil:x\n",
                "evil-1.0.dist-info/METADATA.extra": b"m" * (8 << 20),
            }
        ),
        index,
        tmp_path,
    )
    names = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert [name for name in names if "dist-info" not in name] == ["evil.pth", "evil.py", "inner.py"]
    assert not list(tmp_path.rglob("ran"))


async def test_two_packages_may_share_a_file_but_not_a_name_in_another_case(index, tmp_path):
    shared, clashing = wheel_of({"tests/__init__.py": b""}), wheel_of({"Tests/__init__.py": b""})
    for name in ("one", "two"):
        (index / f"{name}-1.0-py3-none-any.whl").write_bytes(shared)
    target = tmp_path / "packages"
    target.mkdir()
    await install_locked(locked(shared, "one") + locked(shared, "two"), target, tmp_path / "wheels")
    (index / "two-1.0-py3-none-any.whl").write_bytes(clashing)
    with pytest.raises(AppFailed, match="mean the same file"):
        await install_locked(locked(shared, "one") + locked(clashing, "two"), target, tmp_path / "wheels")


async def test_what_a_package_requires_is_not_looked_up(index, tmp_path):
    """11-S2: a requirement by address, in the package's own metadata, reaches nothing."""
    asked: list[str] = []

    class Watching(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802
            asked.append(self.path)
            self.send_error(404)

    with serving(Watching) as address:
        metadata = f"Metadata-Version: 2.1\nName: evil\nVersion: 1.0\nRequires-Dist: other @ {address}/other.whl\n"
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("evil.py", "")
            archive.writestr("evil-1.0.dist-info/METADATA", metadata)
        await install(made.getvalue(), index, tmp_path)
    assert asked == []


@pytest.fixture
def hostile_index(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, tuple[int, dict[str, str], bytes]]]:
    """An index on loopback: what it sends, by path."""
    pages: dict[str, tuple[int, dict[str, str], bytes]] = {}

    class Index(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802
            status, headers, body = pages.get(self.path, (404, {}, b""))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    with serving(Index) as address:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{address}/simple")
        yield pages


HTML = {"content-type": "text/html"}


async def test_an_index_cannot_send_another_file_than_the_locked_one(hostile_index, tmp_path):
    """11-S2: neither by its page nor behind the address that it names."""
    wanted, other = wheel_of(PLAIN), wheel_of({"evil.py": b"x = 2\n"})
    (tmp_path / "packages").mkdir()
    name = "evil-1.0-py3-none-any.whl"
    for digest in (hashlib.sha256(each).hexdigest() for each in (wanted, other)):
        page = f'<a href="/files/{name}#sha256={digest}">{name}</a>'.encode()
        hostile_index["/simple/evil/"] = (200, HTML, page)
        hostile_index[f"/files/{name}"] = (200, {}, other)
        with pytest.raises(AppFailed, match="not the one that the lock pins"):
            await install_locked(locked(wanted), tmp_path / "packages", tmp_path / "wheels")
    assert list((tmp_path / "packages").iterdir()) == list((tmp_path / "wheels").iterdir()) == []


@pytest.mark.parametrize(
    "href",
    [
        "file:///etc/passwd/../{name}", "ftp://127.0.0.1/{name}", "/files/..%2F..%2F{name}", "/missing/{name}",
        "data:application/zip;base64,AAAA/{name}", "http://127.0.0.1:1/{name}", "/loop/{name}",
    ],
)  # fmt: skip
async def test_an_index_that_names_a_strange_address_gets_an_error_and_nothing_else(href, hostile_index, tmp_path):
    """11-S2."""
    wanted, name = wheel_of(PLAIN), "evil-1.0-py3-none-any.whl"
    digest = hashlib.sha256(wanted).hexdigest()
    page = f'<a href="{href.format(name=name)}#sha256={digest}">{name}</a>'.encode()
    hostile_index["/simple/evil/"] = (200, HTML, page)
    hostile_index[f"/loop/{name}"] = (302, {"location": f"/loop/{name}"}, b"")
    (tmp_path / "packages").mkdir()
    with pytest.raises(LlmasosError):
        await install_locked(locked(wanted), tmp_path / "packages", tmp_path / "wheels")
    assert list((tmp_path / "packages").iterdir()) == list((tmp_path / "wheels").iterdir()) == []


async def test_an_index_that_sends_without_end_is_left(hostile_index, tmp_path, monkeypatch):
    """11-S2: its page, and a wheel."""
    monkeypatch.setattr(packages, "_INDEX_BYTES", 1 << 20)
    hostile_index["/simple/evil/"] = (200, HTML, b"<a>" * (2 << 20))
    (tmp_path / "packages").mkdir()
    with pytest.raises(LlmasosError):
        await install_locked(locked(b""), tmp_path / "packages", tmp_path / "wheels")
    monkeypatch.setattr(packages, "_INDEX_BYTES", 512 << 20)
    monkeypatch.setattr(packages, "ENVIRONMENT_BYTES", 1 << 20)
    name, wheel = "evil-1.0-py3-none-any.whl", bytes(2 << 20)
    digest = hashlib.sha256(wheel).hexdigest()
    hostile_index["/simple/evil/"] = (200, HTML, f'<a href="/{name}#sha256={digest}">{name}</a>'.encode())
    hostile_index[f"/{name}"] = (200, {}, wheel)
    with pytest.raises(AppFailed, match="take more than"):
        await install_locked(locked(wheel), tmp_path / "packages", tmp_path / "wheels")
    assert size_bytes(tmp_path / "wheels") < 10_000


async def test_a_wheel_that_was_read_once_is_installed_without_an_index_and_a_changed_one_is_not(
    index, tmp_path, monkeypatch
):
    """11-S2: a kept wheel is hashed again."""
    wheel = wheel_of(PLAIN)
    await install(wheel, index, tmp_path)
    monkeypatch.setenv("PATH", "/nothing")
    (index / "evil-1.0-py3-none-any.whl").unlink()
    target = tmp_path / "again"
    target.mkdir()
    await install_locked(locked(wheel), target, tmp_path / "wheels")
    assert (target / "evil.py").is_file()
    (tmp_path / "wheels" / hashlib.sha256(wheel).hexdigest()).write_bytes(wheel_of({"evil.py": b"changed"}))
    with pytest.raises(Unavailable):
        await install_locked(locked(wheel), target, tmp_path / "wheels")


def test_kept_wheels_have_a_bound_and_the_least_recently_used_goes_first(tmp_path):
    store = WheelStore(tmp_path / "wheels", max_bytes=250)
    with store.scratch() as folder:
        for number in range(4):
            digest = hashlib.sha256(bytes([number]) * 100).hexdigest()
            (folder / digest).write_bytes(bytes([number]) * 100)
            store.keep([digest], folder)
            os.utime(tmp_path / "wheels" / digest, (number, number))
        store.trim()
        kept = [path for path in (tmp_path / "wheels").iterdir() if path.is_file()]
        assert {path.read_bytes()[0] for path in kept} == {2, 3}
        assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}


def test_gc_removes_every_kept_wheel(tmp_path):
    folder = wheel_folder(tmp_path / ENVIRONMENTS)
    folder.mkdir(parents=True)
    (folder / ("0" * 64)).write_bytes(bytes(100))
    assert collect(tmp_path, frozenset(), wheel_bytes=0) == 100
    assert list(folder.iterdir()) == []


@confined
@pytest.mark.parametrize(
    "attack",
    [
        "open({outside!r}, 'w')",
        "open({secret!r}).read()",
        "__import__('os').listdir({outside!r} + '/..')",
        "__import__('os').mkdir({outside!r})",
        "__import__('os').symlink('/etc/passwd', {outside!r})",
        "__import__('os').unlink({secret!r})",
        "__import__('os').rename({secret!r}, 'mine')",
        "__import__('subprocess').run(['./planted'], check=True)",
        "__import__('socket').create_connection(('127.0.0.1', {port}), 1)",
        "__import__('socket').socket(__import__('socket').AF_UNIX)",
        "__import__('os').setuid(1000) or __import__('os').kill({pid}, 0)",
        "__import__('ctypes').CDLL(None).unshare(0x10000000) and (1 / 0)",
        "bytearray(3 << 30)",
        "open('large', 'wb').truncate(3 << 30)",
        "open('/proc/{pid}/environ').read()",
    ],
)
async def test_what_builds_an_environment_reaches_nothing_else(attack, tmp_path):
    """11-S2: were the reader of wheels taken over, the rest of the machine would stay as it is."""
    secret, folder = tmp_path / "secret", tmp_path / "folder"
    secret.write_text("the user's own")
    folder.mkdir()
    (folder / "planted").write_text("#!/bin/sh\n")
    (folder / "planted").chmod(0o755)
    with serving(QuietHandler) as address:
        names = {"outside": str(tmp_path / "outside"), "secret": str(secret), "port": address.rpartition(":")[2]}
        script = attack.format(**names, pid=os.getpid())
        ended = await build_step([base_python(), "-I", "-S", "-c", script], folder, max_bytes=1 << 20)
    assert ended.code != 0
    assert secret.read_text() == "the user's own"
    assert not (tmp_path / "outside").exists()


async def test_a_build_that_writes_too_much_is_killed_while_it_writes(tmp_path):
    """11-S2."""
    script = "import os\nwhile True: os.write(1, bytes(65536))"
    with pytest.raises(WroteTooMuch):
        await build_step([base_python(), "-c", script], tmp_path, max_bytes=1 << 20)


async def test_a_build_that_never_ends_is_killed_with_what_it_started(tmp_path, monkeypatch):
    """11-S2."""
    monkeypatch.setattr(building, "WALL_SECONDS", 0.5)
    script = "import os, time\nos.fork()\ntime.sleep(3600)"
    with pytest.raises(Unavailable, match="took longer"):
        await asyncio.wait_for(build_step([base_python(), "-c", script], tmp_path, max_bytes=1 << 20), 60)


async def test_a_build_sees_no_key_of_the_hosts_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    ended = await build_step([base_python(), "-c", "import os; print(dict(os.environ))"], tmp_path, max_bytes=1 << 20)
    assert b"sk-secret" not in ended.output
    assert sys.executable
