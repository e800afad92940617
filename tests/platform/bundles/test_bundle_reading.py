import hashlib
import io
import os
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.platform.bundles.archives import GOOD, rejected

from llmasos.bundles.reader import bundle_of, read_bundle
from llmasos.bundles.testing import EMPTY_COMPONENT, bundle_files, make_bundle
from llmasos.bundles.writer import pack, write_bundle
from llmasos.errors import BundleRejected, ManifestRejected, NotFound


def zipped(write: Callable[[zipfile.ZipFile], None], files: dict[str, bytes] | None = None) -> bytes:
    """A bundle by the standard library, whose writer allows what ours does not."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")
        for name, content in (bundle_files() if files is None else files).items():
            archive.writestr(name, content)
        write(archive)
    return buffer.getvalue()


def renamed(name: str) -> bytes:
    """The good bundle plus one file of this name, letter by letter."""
    return zipped(lambda archive: archive.writestr(zipfile.ZipInfo(name), b"x"))


def patched(where: str, offset: int, value: bytes, data: bytes = GOOD) -> bytes:
    """The good bundle with a field of its end record, first local header or first directory entry changed."""
    at = {"end": len(data) - 22, "local": 0, "central": data.index(b"PK\x01\x02")}[where] + offset
    return data[:at] + value + data[at + len(value) :]


def both(local: int, central: int, value: bytes) -> bytes:
    return patched("central", central, value, patched("local", local, value))


def test_a_bundle_is_read_whole(tmp_path: Path) -> None:
    path = make_bundle(tmp_path)
    bundle = read_bundle(path)
    assert bundle.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert bundle.component == EMPTY_COMPONENT
    assert bundle.component_digest == hashlib.sha256(EMPTY_COMPONENT).hexdigest()
    assert bundle.manifest.id == "acme/hello"
    assert bundle.actions[0].title("zh-CN") == "问候"
    assert bundle.readme == "# Hello\n"
    assert bundle.code == {"app.wasm": EMPTY_COMPONENT}


def test_the_same_files_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    files = bundle_files()
    backwards = dict(reversed(files.items()))
    assert write_bundle(files, tmp_path / "a.llmapp") == write_bundle(backwards, tmp_path / "b.llmapp")
    assert (tmp_path / "a.llmapp").read_bytes() == (tmp_path / "b.llmapp").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.llmapp", "b.llmapp"]


def test_a_bundle_is_a_zip_that_others_read() -> None:
    with zipfile.ZipFile(io.BytesIO(GOOD)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == bundle_files()


def test_a_bundle_written_by_the_standard_library_is_read() -> None:
    assert bundle_of(zipped(lambda _: None)).manifest.id == "acme/hello"


def test_a_real_component_is_within_the_ratio() -> None:
    # Like a component with a data segment: code that deflates to a third, and 16 MiB of zeros.
    noise = random.Random(1).randbytes(2 << 20)
    component = EMPTY_COMPONENT + b"".join(bytes([b & 0x0F]) * 3 for b in noise) + bytes(16 << 20)
    assert bundle_of(pack(bundle_files(component=component))).component == component


NAMES = [
    "../evil", "a/../../evil", "..", "./a", "a/./b", "a//b", "/etc/passwd", "//host/share", "C:/evil", "C:evil",
    "a\\..\\evil", "\\evil", "a/", "README.MD", "readme.md", "LLMAPP.toml", "app.wasm/x", "cafe\u0301.md",
    "README.md ", "README.md.", "a\x01b", "a\u202eb", "\u212a.md", "x" * 300, "NOTICE.md:stream", "evil.py", "a/b.md",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_not_plain_is_refused(name: str) -> None:
    rejected(renamed(name))


def test_the_composed_and_the_decomposed_name_clash() -> None:
    data = zipped(lambda a: (a.writestr("caf\u00e9.md", b"1"), a.writestr("cafe\u0301.md", b"2")))
    assert "NFC" in rejected(data)
    # A letter that folds to another one's: two files here, one on a system that ignores case.
    folded = zipped(lambda a: (a.writestr("NOTICE.md", b"1"), a.writestr("notice.md", b"2")))
    assert "same file" in rejected(folded)


def test_a_duplicate_name_is_refused() -> None:
    assert "twice" in rejected(zipped(lambda archive: archive.writestr("README.md", b"other")))


def test_a_symlink_a_folder_and_a_device_are_refused() -> None:
    for mode, said in ((0o120777, "link"), (0o040755, "folder"), (0o020666, "device"), (0o010644, "device")):
        info = zipfile.ZipInfo("NOTICE")
        info.external_attr = mode << 16
        assert said in rejected(zipped(lambda archive, info=info: archive.writestr(info, b"x")))
    assert "folder" in rejected(zipped(lambda archive: archive.mkdir("docs")))


def test_data_before_between_and_after_is_refused() -> None:
    assert "before it" in rejected(b"#!/bin/sh\n" + GOOD)
    assert "after its end" in rejected(GOOD + b"x")
    assert "after its end" in rejected(GOOD + bytes(22))
    assert rejected(GOOD + GOOD)
    # A prefix with the offsets adjusted, as self-extracting archives have.
    assert rejected(zipped(lambda _: None).replace(b"PK\x03\x04", b"PK\x03\x05", 1))
    at = GOOD.index(b"PK\x01\x02")
    gap = GOOD[:at] + b"gap" + GOOD[at:-22] + struct.pack("<4s4H2IH", *_end(GOOD, offset=3))
    assert "belong to no file" in rejected(gap)


def _end(data: bytes, offset: int = 0) -> tuple[bytes | int, ...]:
    fields = list(struct.unpack("<4s4H2IH", data[-22:]))
    fields[6] += offset
    return tuple(fields)


def test_entries_that_overlap_are_refused() -> None:
    second = GOOD.index(b"PK\x01\x02", GOOD.index(b"PK\x01\x02") + 4)
    assert "overlap" in rejected(GOOD[: second + 42] + bytes(4) + GOOD[second + 46 :])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (both(6, 8, b"\x01\x00"), "encrypted"),
        (both(6, 8, b"\x08\x00"), "after its data"),
        (both(6, 8, b"\x20\x00"), "unknown flags"),
        (both(8, 10, b"\x0c\x00"), "method 12"),
        (both(4, 6, b"\x2d\x00"), "zip64"),
        (both(14, 16, b"\0\0\0\0"), "checksum"),
        (both(22, 24, b"\x01\0\0\0"), "size"),
        (both(22, 24, b"\xff\xff\0\0"), "size"),
        (both(18, 20, b"\xff\xff\xff\xff"), "zip64"),
        (both(18, 20, b"\x01\0\0\0"), ""),
        (both(22, 24, b"\xff\xff\xff\x7f"), "unpacks to"),
        (patched("local", 6, b"\x00\x08"), "two things"),
        (patched("local", 14, b"\0\0\0\0"), "two things"),
        (patched("local", 18, b"\x01\0\0\0"), "two things"),
        (patched("local", 30, b"X"), "two names"),
        (patched("local", 28, b"\x04\x00"), "two things"),
        (patched("central", 30, b"\x04\x00"), "extra fields"),
        (patched("central", 32, b"\x04\x00"), "comments"),
        (patched("central", 42, b"\x01\0\0\0"), "overlap"),
        (patched("end", 8, b"\xff\xff\xff\xff"), "zip64"),
        (patched("end", 16, b"\xff\xff\xff\xff"), "zip64"),
        (patched("end", 8, b"\x01\x00\x01\x00"), ""),
        (patched("end", 10, b"\x09\x00"), "contradicts"),
        (patched("end", 4, b"\x01\x00"), "contradicts"),
        (patched("end", 20, b"\x01\x00"), "contradicts"),
        (patched("end", 12, b"\x01\0\0\0"), "directory"),
        (GOOD[:-1], "cut short"),
        (GOOD[: len(GOOD) // 2], "cut short"),
        (b"", "no bundle"),
        (GOOD[-22:], "directory"),
        (struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0, 0, 0, 0, 0), "no llmapp.toml"),
        (b"\x1f\x8b" + bytes(100), "no bundle"),
    ],
)
def test_headers_that_lie_are_refused(data: bytes, said: str) -> None:
    assert said in rejected(data)


def test_a_comment_an_extra_field_and_a_descriptor_are_refused() -> None:
    def comment(archive: zipfile.ZipFile) -> None:
        archive.comment = b"hello"

    assert "comment" in rejected(zipped(comment))
    info = zipfile.ZipInfo("NOTICE")
    info.extra = b"\x01\x00\x00\x00"
    assert "extra" in rejected(zipped(lambda archive: archive.writestr(info, b"x")))

    class Unseekable(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

    stream = Unseekable()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("llmapp.toml", b"x" * 100)
    assert "after its data" in rejected(stream.getvalue())


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_another_method_is_refused(method: int) -> None:
    assert rejected(zipped(lambda archive: archive.writestr("NOTICE", b"x" * 999, compress_type=method)))


@pytest.mark.timeout(20)
def test_bombs_are_refused_before_they_unpack() -> None:
    """SECURITY C1."""
    assert "100 times" in rejected(zipped(lambda archive: archive.writestr("NOTICE", bytes(60 << 20))))
    assert "limit is 64 MiB" in rejected(zipped(lambda archive: archive.writestr("NOTICE", bytes(65 << 20))))
    # The directory says 10 bytes; the stream holds 50 MiB.
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = packer.compress(bytes(50 << 20)) + packer.flush()
    header = struct.pack("<5H3I", 20, 0, 8, 0, 33, 0, len(stream), 10)
    local = b"PK\x03\x04" + header + struct.pack("<2H", 6, 0) + b"NOTICE" + stream
    central = b"PK\x01\x02" + struct.pack("<H", 20) + header + struct.pack("<5H2I", 6, 0, 0, 0, 0, 0, 0) + b"NOTICE"
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(central), len(local), 0)
    assert "wrong size" in rejected(local + central + end)


def test_too_many_entries_are_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    many = zipped(lambda archive: [archive.writestr(f"n{i}", b"") for i in range(513)])
    assert "limit is 512" in rejected(many)
    # The number decides, whatever the entries are.
    assert "limit is 512" in rejected(patched("end", 8, b"\xfe\xff\xfe\xff"))
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 10)
    zip64 = zipped(lambda archive: [archive.writestr(f"n{i}", b"") for i in range(20)])
    assert "zip64" in rejected(patched("end", 8, b"\xff" * 4, zip64))  # as it counts more than 65,534 of them


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_a_mutated_bundle_is_read_or_rejected(data: st.DataObject) -> None:
    """SECURITY C1."""
    spoilt = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(spoilt) - 1))
        match data.draw(st.sampled_from("xid")):
            case "x":
                spoilt[at] = data.draw(st.integers(0, 255))
            case "i":
                spoilt[at:at] = data.draw(st.binary(max_size=6))
            case _:
                del spoilt[at : at + data.draw(st.integers(1, 8))]
    try:
        bundle = bundle_of(bytes(spoilt))
    except (BundleRejected, ManifestRejected):
        return
    # What still reads is what was written: only times and the like may differ.
    assert dict(bundle.files) == bundle_files()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_are_rejected(data: bytes) -> None:
    rejected(data)
    rejected(b"PK\x03\x04" + data)


def test_a_path_that_is_not_a_bundle_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_bundle(tmp_path / "none.llmapp")
    with pytest.raises(BundleRejected):
        read_bundle(tmp_path)
    os.mkfifo(tmp_path / "fifo")


def test_the_writer_refuses_what_the_reader_would(tmp_path: Path) -> None:
    with pytest.raises(BundleRejected):
        write_bundle({"../x": b""}, tmp_path / "x.llmapp")
    assert list(tmp_path.iterdir()) == []
