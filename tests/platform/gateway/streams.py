"""Reads streams of the gateway in tests."""

from __future__ import annotations

from upstream import chunk

from llmasos.gateway.gateway import Gateway


async def read_all(gateway: Gateway, request):
    """The parts of a stream, and what it used; or the error, after which the stream is closed."""
    stream = await gateway.stream(request)
    parts = []
    try:
        while (part := await stream.read()) is not None:
            parts.append(part)
    finally:
        await stream.close()
        read_all.used = stream.used
    return parts


def told(parts, field: str = "content") -> str:
    return "".join(part["choices"][0]["delta"].get(field) or "" for part in parts)


END = chunk(finish="stop")


async def text_of(stream, stop_after: int | None = None) -> str:
    said: list[str] = []
    while (part := await stream.read()) is not None:
        said.append(part["choices"][0]["delta"].get("content", ""))
        if stop_after is not None and len(said) >= stop_after:
            break
    return "".join(said)
