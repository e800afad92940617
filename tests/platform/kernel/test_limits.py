"""The limits on the size and depth of an app's payloads."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmasos.errors import Invalid
from llmasos.kernel.guest_calls import json_text, parse_json
from llmasos.kernel.limits import MAX_DEPTH, check_arguments, check_json_depth
from llmasos.runtimes.frames import SyscallFrame, decode
from llmasos_runner.protocol import LENGTH, MAX_PAYLOAD_BYTES, encode


@pytest.mark.parametrize("character", ["x", '"', "\\", "\x01", "é", "中", "😀"])
def test_the_largest_payload_fits_a_frame_whatever_it_holds(character: str) -> None:
    """10-21: requests might be 8 MiB, arguments 1 MiB and frames 4 MiB, so that no limit could be reached."""
    text = json.dumps(character * (MAX_PAYLOAD_BYTES // len(json.dumps(character)) + 1), ensure_ascii=False)
    while len(text.encode()) > MAX_PAYLOAD_BYTES:
        text = json.dumps(json.loads(text)[:-1], ensure_ascii=False)
    arguments = [text]
    check_arguments(arguments)
    call = {"t": "syscall", "id": "i", "seq": 1, "capability": "model", "function": "generate", "arguments": arguments}
    assert decode(encode(call)[LENGTH.size :]) == SyscallFrame("i", 1, "model", "generate", arguments)


def test_one_byte_more_is_refused_and_the_limit_is_named() -> None:
    check_arguments(["x" * MAX_PAYLOAD_BYTES])
    with pytest.raises(Invalid, match="1,048,576 bytes"):
        check_arguments(["x", "x" * MAX_PAYLOAD_BYTES])


@pytest.mark.parametrize("shape", ["[" * 100_000, '{"a":' * 100_000, "[" * 65 + "]" * 65])
def test_json_that_nests_too_deep_is_refused_before_it_is_parsed(shape: str) -> None:
    """11-S13: deep JSON raised RecursionError in each place that parses it."""
    with pytest.raises(Invalid, match="64 deep"):
        parse_json(shape)


def test_brackets_in_strings_are_no_depth() -> None:
    value = [{"text": '"[{' * 1000 + "\\"}] * 100
    assert parse_json(json.dumps(value)) == value


@given(st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_what_is_not_deep_is_let_through(value: object) -> None:
    check_json_depth(json.dumps([value] * (MAX_DEPTH + 1)))


def test_half_a_character_reaches_the_app_as_an_escape() -> None:
    assert json.loads(json_text({"text": "\ud83d"})) == {"text": "\ud83d"}
