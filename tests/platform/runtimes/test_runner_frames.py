import json
import struct
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmasos.errors import LlmasosError
from llmasos.i18n import _, render, to_text
from llmasos.json_text import replace_half_characters
from llmasos.runtimes import frames
from llmasos.runtimes.frames import DoneFrame, FailureFrame, FrameReader, ProtocolFault, SyscallFrame, decode
from llmasos.runtimes.results import outcome_of
from llmasos.runtimes.runner import CallEnd
from llmasos_runner.protocol import MAX_FRAME_BYTES, FrameError, encode, take_frame

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(SCALARS | TEXTS, max_size=16), TEXTS.filter(lambda text: len(text) <= 200), st.integers(0, 2**63 - 1))
def test_what_a_runner_encodes_the_host_decodes(arguments, name, seq):
    message = {"t": "syscall", "id": name, "seq": seq, "capability": "c", "function": name, "arguments": arguments}
    decoded = decode(encode(message)[4:])
    assert isinstance(decoded, SyscallFrame)
    assert decoded.arguments == arguments
    assert (decoded.id, decoded.seq) == (name, seq)


@given(st.recursive(SCALARS | TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=20))
def test_what_the_host_encodes_a_runner_reads(value):
    message = {"t": "reply", "id": "x", "seq": 1, "value": value}
    assert take_frame(bytearray(frames.encode(message))) == message


@given(st.lists(st.integers(1, 50)), st.lists(TEXTS, max_size=5))
def test_a_runner_takes_whole_messages_however_the_stream_is_cut(cuts, texts):
    stream = b"".join(frames.encode({"t": "reply", "id": text, "seq": 1}) for text in texts)
    received, taken = bytearray(), []
    for end in [*cuts, len(stream)]:
        received += stream[:end]
        stream = stream[end:]
        while (message := take_frame(received)) is not None:
            taken.append(message["id"])
    assert (taken, bytes(received)) == (texts, b"")


@pytest.mark.parametrize(
    "frame",
    [struct.pack(">I", MAX_FRAME_BYTES + 1), struct.pack(">I", 2) + b"[]", struct.pack(">I", 2) + b"{]"],
    ids=["too large", "no object", "no JSON"],
)
def test_a_runner_refuses_a_broken_frame(frame):
    with pytest.raises(FrameError):
        take_frame(bytearray(frame))


def test_what_is_too_large_is_a_frame_error():
    with pytest.raises(FrameError):
        frames.encode({"t": "reply", "id": "x", "seq": 1, "value": "x" * (MAX_FRAME_BYTES + 1)})


@pytest.mark.parametrize("encoder", [frames.encode, encode])
@pytest.mark.parametrize(
    ("text", "sent"), [("a\ud83d", "a\ufffd"), ("\ude00b", "\ufffdb"), ("\ud83d\ude00", "😀"), ("é", "é")]
)
def test_half_a_character_is_replaced_and_two_halves_are_joined(encoder, text, sent):
    """11-10: half an emoji in a text that crosses between host and runner ended the run."""
    frame = bytearray(encoder({"t": "reply", "id": "x", "seq": 1, "value": text}))
    assert take_frame(frame)["value"] == sent


@pytest.mark.parametrize(
    ("text", "sound"),
    [
        (r'"\\ud83d"', r'"\\ud83d"'),
        (r'"a\ud83d"', r'"a\ufffd"'),
        (r'"\uDE00b"', r'"\ufffdb"'),
        (r'"\ud83d\ude00"', r'"\ud83d\ude00"'),
        (r'"\ud83d\ud83d\ude00\n"', r'"\ufffd\ud83d\ude00\n"'),
        (r'"\\\ud83dx"', r'"\\\ufffdx"'),
    ],
)
def test_escapes_of_half_characters_in_json_text_are_replaced(text, sound):
    """11-10: JavaScript and Python write them when they cut a text within an emoji, and strict parsers refuse them."""
    assert replace_half_characters(text) == sound
    assert msgspec.json.decode(replace_half_characters(text)) == json.loads(sound)


@given(TEXTS)
def test_sound_json_text_stays_as_it_is(text):
    assert replace_half_characters(json.dumps(text)) == json.dumps(text)


def test_half_a_character_in_an_answer_does_not_fail_the_action():
    """11-10."""
    outcome = outcome_of(CallEnd(DoneFrame("i", 0, 0, "", output=r'{"cut": "a\ud83d"}')), 100)
    assert json.loads(outcome.output_or_raise()) == {"cut": "a\ufffd"}


@given(TEXTS, TEXTS)
def test_outputs_and_logs_of_any_text_cross(output, log):
    message = {"t": "done", "id": "x", "fuel": 1, "memory_bytes": 2, "log": log, "output": output}
    decoded = decode(encode(message)[4:])
    assert isinstance(decoded, DoneFrame)
    assert (decoded.output, decoded.log) == (output, log)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_fault(body):
    with suppress(ProtocolFault):
        decode(body)


@given(st.lists(st.integers(1, 50)), st.integers(1, 5))
def test_frames_come_whole_however_the_stream_is_cut(cuts, count):
    messages = [{"t": "refused", "message": f"é{number}"} for number in range(count)]
    stream = b"".join(encode(message) for message in messages)
    reader, seen = FrameReader(), []
    for cut in [*cuts, len(stream)]:
        seen += reader.feed(stream[:cut])
        stream = stream[cut:]
    assert [message.message for message in seen] == [message["message"] for message in messages]


@pytest.mark.parametrize(
    ("failure", "en", "zh"),
    [
        (
            FailureFrame("invalid", to_text(_("the app failed: {error}", error="KeyError: 'x'"))),
            "the app failed: KeyError: 'x'",
            "应用出错：KeyError: 'x'",
        ),
        (
            FailureFrame("invalid", to_text(_("The app crashed: {trapped}.", trapped="oh")), "app-failed"),
            "The app crashed: oh.",
            "应用崩溃：oh。",
        ),
        # Anything that a hostile runner sends instead of a message is treated as its own words.
        (FailureFrame("invalid", '{"id": "{0.__class__}"}'), '{"id": "{0.__class__}"}', '{"id": "{0.__class__}"}'),
        (FailureFrame("invalid", '{"id": 1}'), '{"id": 1}', '{"id": 1}'),
        (FailureFrame("conflict", "words of its own"), "words of its own", "words of its own"),
    ],
)
def test_an_error_is_shown_in_chinese_except_for_the_apps_own_words(failure: FailureFrame, en: str, zh: str) -> None:
    error = outcome_of(CallEnd(DoneFrame("i", 0, 0, "", error=failure)), 100).error
    assert isinstance(error, LlmasosError)
    assert (error.message, render(error.message, "zh")) == (en, zh)
