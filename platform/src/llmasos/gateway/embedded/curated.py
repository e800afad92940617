"""Better models than the built-in one, for `models pull NAME`.

An entry is listed only if its SHA-256 is known from a published record of the file; a fetched file that differs is
refused. For any other file, `models pull NAME --url … --sha256 …` takes the digest that its publisher states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from llmasos.bundles.manifest import Tier
from llmasos.gateway.request import Task


@dataclass(frozen=True, slots=True)
class CuratedModel:
    """A file of weights at a hub."""

    name: str
    path: str
    """Below the hub's address."""
    sha256: str
    size_bytes: int = 0
    licence: str = "unknown"
    context_window: int = 8192
    tier: Tier = "balanced"
    tasks: tuple[Task, ...] = ()
    languages: tuple[str, ...] = ()


_ENTRIES = (
    CuratedModel(
        name="qwen2.5-1.5b",
        path="Qwen/Qwen2.5-1.5B-Instruct-GGUF/resolve/91cad51170dc346986eccefdc2dd33a9da36ead9/"
        "qwen2.5-1.5b-instruct-q4_k_m.gguf",
        sha256="6a1a2eb6d15622bf3c96857206351ba97e1af16c30d7a74ee38970e434e9407e",
        size_bytes=1_117_320_736,
        licence="Apache-2.0",
    ),
)

CURATED: Mapping[str, CuratedModel] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
