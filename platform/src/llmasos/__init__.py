"""LLMasOS: an operating system for LLM apps.

The names below are the client for programs; each is imported when it is first used, since a program that imports
`llmasos` for one of them should not wait for the host.

    import llmasos

    llmasos.generate_text(engine="smollm2", prompt="Write one sentence about the sea.", max_tokens=40).text
    llmasos.translate(text="Good day", source_language="en", target_language="de").text
    llmasos.run("acme/translator", "translate", text="Good day")

    for piece in llmasos.stream("Tell me a story."):
        print(piece, end="")

    with llmasos.connect("http://127.0.0.1:8765", token="…") as client:
        client.run("acme/translator", "translate", text="Good day")

    async with llmasos.AsyncClient() as client:
        await client.generate_text("Good day")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmasos.async_client import AsyncClient
    from llmasos.client import Client, connect, embed, generate_text, run, stream, translate
    from llmasos.errors import (
        Cancelled,
        Conflict,
        Denied,
        Invalid,
        LlmasosError,
        NotFound,
        QuotaExceeded,
        TimedOut,
        Unauthenticated,
        Unavailable,
    )

__all__ = [
    "AsyncClient",
    "Cancelled",
    "Client",
    "Conflict",
    "Denied",
    "Invalid",
    "LlmasosError",
    "NotFound",
    "QuotaExceeded",
    "TimedOut",
    "Unauthenticated",
    "Unavailable",
    "connect",
    "embed",
    "generate_text",
    "run",
    "stream",
    "translate",
]

_CLIENT = frozenset({"Client", "connect", "embed", "generate_text", "run", "stream", "translate"})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'llmasos' has no attribute {name!r}")
    # Imported lazily; see the module's docstring.
    if name == "AsyncClient":
        return import_module("llmasos.async_client").AsyncClient
    return getattr(import_module("llmasos.client" if name in _CLIENT else "llmasos.errors"), name)


def __dir__() -> list[str]:
    """What a notebook offers after `llmasos.`, though most of it is not imported yet."""
    return sorted({*globals(), *__all__})
