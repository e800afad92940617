"""LLMasOS: an operating system for LLM apps.

The names below are the client for programs; each is imported when it is first used, since a program that imports
`llmasos` for one of them should not wait for the host.

    import llmasos

    llmasos.generate_text(engine="smollm2", prompt="Write one sentence about the sea.", max_tokens=40).text
    llmasos.translate(text="Good day", source_language="en", target_language="de").text
    llmasos.run("acme/translator", "translate", text="Good day")

    with llmasos.connect("http://127.0.0.1:8765", token="…") as client:
        client.run("acme/translator", "translate", text="Good day")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmasos.client import Client, connect, embed, generate_text, run, translate

__all__ = ["Client", "connect", "embed", "generate_text", "run", "translate"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from llmasos import client  # noqa: PLC0415 - lazily, as the opening comment says

        return getattr(client, name)
    raise AttributeError(f"module 'llmasos' has no attribute {name!r}")
