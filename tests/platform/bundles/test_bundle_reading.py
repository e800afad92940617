import hashlib
import io
import json
import os
import random
import struct
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmasos.bundles import layout
from llmasos.bundles.actions import parse_actions
from llmasos.bundles.reader import bundle_of, read_bundle
from llmasos.bundles.testing import EMPTY_COMPONENT, action, bundle_files, make_bundle, manifest_text
from llmasos.bundles.writer import pack, write_bundle
from llmasos.errors import BundleRejected, ManifestRejected, NotFound

GOOD = pack(bundle_files())


def rejected(data: bytes) -> str:
    with pytest.raises(BundleRejected) as caught:
        bundle_of(data)
    assert "\n" not in caught.value.message
    return caught.value.message


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
    began = time.perf_counter()
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
    assert time.perf_counter() - began < 10


@pytest.mark.timeout(30)
def test_too_many_entries_are_refused_quickly() -> None:
    many = zipped(lambda archive: [archive.writestr(f"n{i}", b"") for i in range(60_000)])
    began = time.perf_counter()
    assert "limit is 512" in rejected(many)
    assert time.perf_counter() - began < 0.1
    zip64 = zipped(lambda archive: [archive.writestr(f"n{i}", b"") for i in range(100_000)])
    began = time.perf_counter()
    assert "zip64" in rejected(zip64)
    assert time.perf_counter() - began < 0.1


def without(name: str) -> dict[str, bytes]:
    return {key: value for key, value in bundle_files().items() if key != name}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (without(layout.MANIFEST), "no llmapp.toml"),
        (without(layout.ACTIONS), "no actions.json"),
        (without(layout.COMPONENT), "app.wasm"),
        (without(layout.README), "no README.md"),
        ({**bundle_files(), "x.py": b""}, "nothing reads"),
        ({**bundle_files(), layout.README: b"\xff"}, "not UTF-8"),
        ({**bundle_files(), layout.MANIFEST: b"\xff"}, "not UTF-8"),
        ({**bundle_files(), layout.LOCK: b""}, "no wheel"),
        (bundle_files(component=b"\0asm\x01\0\0\0"), "core module"),
        (bundle_files(component=b"MZ"), "not WebAssembly"),
        (bundle_files(component=b""), "not WebAssembly"),
        (bundle_files(manifest_text().replace("[name]", 'icon = "i.svg"\n[name]')), "icon"),
        (bundle_files(manifest_text().replace('"wasm"', '"python"')), "one wheel"),
    ],
)
def test_missing_and_superfluous_files_are_named(files: dict[str, bytes], said: str) -> None:
    assert said in rejected(pack(files))


PYTHON = manifest_text().replace('"wasm"', '"python"')
HASH = "--hash=sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        (f"numpy==2.0 \\\n    {HASH}\nsix==1.0 {HASH} {HASH}\n# a comment\n", ""),
        ("", ""),
        ("numpy==2.0", "no sha256"),
        (f"numpy>=2.0 {HASH}", "not pinned"),
        (f"numpy==2.* {HASH}", "not pinned"),
        (f"numpy {HASH}", "not pinned"),
        (f"numpy @ https://evil.example/n.whl {HASH}", "address"),
        (f"https://evil.example/n.whl {HASH}", "not a requirement"),
        (f"./n.whl {HASH}", "not a requirement"),
        ("--index-url https://evil.example", "option"),
        ("-e .", "option"),
        (f"numpy==2.0 --hash=md5:{'0' * 32}", "no sha256"),
        (f"numpy==2.0 {HASH} --global-option=x", "no sha256"),
    ],
)
def test_a_lock_is_pinned_hashed_and_without_addresses(lock: str, said: str) -> None:
    files = without(layout.COMPONENT) | {
        layout.MANIFEST: PYTHON.encode(), "hello-1.0.0-py3-none-any.whl": b"PK", layout.LOCK: lock.encode(),
    }  # fmt: skip
    if said:
        assert said in rejected(pack(files))
        return
    bundle = bundle_of(pack(files))
    assert bundle.wheel == "hello-1.0.0-py3-none-any.whl"
    other = bundle_of(pack({**files, layout.LOCK: lock.encode() + b"# other\n"}))
    assert bundle.component_digest != other.component_digest


def schema_actions(schema: object) -> bytes:
    return json.dumps([{**action(), "output_schema": schema}]).encode()


DEEP: dict[str, object] = {}
for _ in range(40):
    DEEP = {"type": "array", "items": DEEP}
DOUBLING = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(13)} | {"d13": {}}


@pytest.mark.parametrize(
    ("actions", "said"),
    [
        (b"{}", "not a list"),
        (b"[]", "at least one"),
        (b"[1]", "not an action"),
        (b"nonsense", "not valid JSON"),
        (b"[" * 100_000, "deeply"),
        (b'[{"name": NaN}]', "NaN"),
        (b'[{"name": "a", "name": "b"}]', "same key twice"),
        (json.dumps([action(), action()]).encode(), "twice"),
        (json.dumps([action(f"a{i}") for i in range(65)]).encode(), "limit is 64"),
        (json.dumps([action("Bad Name")]).encode(), "not a name"),
        (json.dumps([action("../x")]).encode(), "not a name"),
        (json.dumps([{**action(), "exec": 1}]).encode(), "unknown key"),
        (json.dumps([{**action(), "title": {"fr": "x"}}]).encode(), "title"),
        (json.dumps([{**action(), "title": {"en": 3}}]).encode(), "title"),
        (json.dumps([{**action(), "streaming": "yes"}]).encode(), "streaming"),
        (json.dumps([{**action(), "input_schema": {"type": "string"}}]).encode(), "inputs are named"),
        (json.dumps([{**action(), "input_schema": None}]).encode(), "not a JSON Schema"),
        (json.dumps([{"name": "@install"}]).encode(), "at least one"),
        (json.dumps([action(), {"name": "@instal"}]).encode(), "'@instal' is not a lifecycle event"),
        (json.dumps([action(), action("@install")]).encode(), "'@install' is not a lifecycle event"),
        (json.dumps([action(), {"name": "@install"}, {"name": "@install"}]).encode(), "names '@install' twice"),
        (schema_actions({"type": "strin"}), "not valid JSON Schema"),
        (schema_actions({"minimum": "1"}), "not valid JSON Schema"),
        (schema_actions({"$ref": "https://evil.example/schema.json"}), "only #/$defs/"),
        (schema_actions({"$ref": "#"}), "only #/$defs/"),
        (schema_actions({"$ref": "file:///etc/passwd"}), "only #/$defs/"),
        (schema_actions({"$ref": "#/$defs/x"}), "not there"),
        (schema_actions({"$ref": "#/$defs/x", "$defs": {"x": {"$ref": "#/$defs/x"}}}), "refers to itself"),
        (schema_actions({"$ref": "#/$defs/x", "$defs": {"x": {"items": {"$ref": "#/$defs/x"}}}}), "refers to itself"),
        (schema_actions({"$ref": "#/$defs/d0", "$defs": DOUBLING}), "over 20000 parts"),
        (schema_actions(DEEP), "deep"),
        (schema_actions({"type": "string", "pattern": "(a+)+$"}), "'pattern'"),
        (schema_actions({"patternProperties": {"(a+)+$": {}}}), "'patternProperties'"),
        (schema_actions({"uniqueItems": True}), "'uniqueItems'"),
        (schema_actions({"$dynamicRef": "#x"}), "'$dynamicRef'"),
        (schema_actions({"$id": "https://evil.example"}), "'$id'"),
        (schema_actions({"$schema": "http://json-schema.org/draft-07/schema#"}), "dialect"),
        (schema_actions({"enum": [[[]] * 100] * 300}), "over 20000"),
        (b'["' + b"x" * (600 << 10) + b'"]', "512 KiB"),
    ],
)  # fmt: skip
@pytest.mark.timeout(10)
def test_actions_that_the_host_would_not_run_are_refused(actions: bytes, said: str) -> None:
    assert said in rejected(pack({**bundle_files(), layout.ACTIONS: actions}))


@pytest.mark.parametrize(
    "schema",
    [
        {}, {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}},
        {"anyOf": [{"type": "string"}, {"type": "null"}], "x-ui": "textarea", "x-title": {"en": "a", "zh": "b"}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"enum": [1, "b"]}}, "title": "A"},
        {"type": "array", "items": {"type": "object", "properties": {"pattern": {"type": "string"}}}, "maxItems": 3},
    ],
)  # fmt: skip
def test_ordinary_schemas_pass(schema: dict[str, object]) -> None:
    assert (
        bundle_of(pack({**bundle_files(), layout.ACTIONS: schema_actions(schema)})).actions[0].output_schema == schema
    )


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


@pytest.mark.parametrize(
    "change",
    [
        {"title": "\x1b[2KGreet"},
        {"title": {"en": "Greet\nIt may: nothing"}},
        {"description": "\u202eGreet"},
        {"input_schema": {"type": "object", "properties": {"na\x1bme": {"type": "string"}}}},
        {"input_schema": {"type": "object", "properties": {"name": {"title": "\x9b2K"}}}},
        {"input_schema": {"type": "object", "properties": {"name": {"enum": ["\x07"]}}}},
        {"x-note": ["\x00"]},
    ],
)
def test_characters_that_readers_cannot_see_are_refused_in_actions(change: dict[str, object]) -> None:
    """11-S1: titles, descriptions and choices of actions are shown by commands and pages."""
    with pytest.raises(BundleRejected, match="which readers cannot see"):
        parse_actions(json.dumps([action() | change]))


def test_a_description_of_an_action_may_have_lines() -> None:
    parse_actions(json.dumps([action() | {"description": "Greet somebody.\n\n\tPolitely."}]))


@pytest.mark.parametrize(
    "field",
    [
        {"type": "string", "default": None},
        {"enum": ["kind", "curt"], "default": "rude"},
        {"type": "object", "properties": {"count": {"type": "integer", "default": "three"}}},
        {"anyOf": [{"type": "integer", "default": "x"}, {"type": "null"}]},
        {"$ref": "#/$defs/size", "default": "large"},
        {"type": "array", "items": {"type": "integer", "maximum": 3, "default": 4}},
    ],
)
def test_a_default_that_its_own_schema_refuses_is_refused(field: dict[str, object]) -> None:
    """11-17: such an action was published, and each call without the input failed."""
    schema = {"type": "object", "properties": {"field": field}, "$defs": {"size": {"type": "integer"}}}
    with pytest.raises(BundleRejected, match="default that its own schema refuses"):
        parse_actions(json.dumps([action() | {"input_schema": schema}]))


@pytest.mark.timeout(10)
def test_a_default_that_takes_long_to_check_is_refused_at_once() -> None:
    items = {"anyOf": [{"type": "object", "required": [str(number)]} for number in range(3000)]}
    schema = {"type": "object", "properties": {"field": {"type": "array", "items": items, "default": [{}] * 3000}}}
    with pytest.raises(BundleRejected, match="takes too long to check"):
        parse_actions(json.dumps([action() | {"input_schema": schema}]))
