"""The events of the embedded engine, as its provider reads them."""

import json

import httpx
import pytest

from llmasos.errors import ModelUnavailable
from llmasos.gateway.embedded.provider import _events


def response(*events: str) -> httpx.Response:
    content = "".join(f"data: {event}\n\n" for event in events).encode()
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=content)


async def test_only_the_line_ends_of_the_format_end_a_line_of_it() -> None:
    """11-S17: U+2028 or U+0085 in a chunk ended the stream."""
    texts = [f"a{character}b" for character in "\x0b\x0c\x1c\x85\u2028\u2029"]
    sent = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    assert [event["text"] async for event in _events(response(*sent, "[DONE]"))] == texts


async def test_an_error_among_the_events_is_raised() -> None:
    with pytest.raises(ModelUnavailable, match="out of slots"):
        _ = [event async for event in _events(response('{"text": "a"}', '{"error": {"message": "out of slots"}}'))]
