"""Bundles for tests: small, valid, and easy to corrupt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from llmasos.bundles import layout
from llmasos.bundles.writer import write_bundle

# An empty component: the magic, the version of the component format, and no section.
EMPTY_COMPONENT: Final = b"\0asm\x0d\x00\x01\x00"

MODEL_PERMISSION: Final = """
[[permissions]]
capability = "model"
tiers = ["fast"]
reason.en = "Answers you."
"""


def manifest_text(app_id: str = "acme/hello", version: str = "1.0.0", extra: str = MODEL_PERMISSION) -> str:
    """A manifest; `extra` follows its fixed part, as TOML tables."""
    return f"""\
schema = 1
id = "{app_id}"
version = "{version}"
license = "Apache-2.0"
[name]
en = "Hello"
zh = "你好"
[summary]
en = "Says hello."
[runtime]
kind = "wasm"
source = "app.py"
{extra}"""


def action(name: str = "greet") -> dict[str, Any]:
    """An action that takes a name and returns a text."""
    return {
        "name": name,
        "title": {"en": "Greet", "zh": "问候"},
        "description": "Greet somebody.",
        "input_schema": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
        "output_schema": {"type": "string"},
        "streaming": False,
    }


def bundle_files(
    manifest: str | None = None, component: bytes = EMPTY_COMPONENT, actions: list[dict[str, Any]] | None = None
) -> dict[str, bytes]:
    """The files of a small app."""
    return {
        layout.MANIFEST: (manifest_text() if manifest is None else manifest).encode(),
        layout.ACTIONS: json.dumps([action()] if actions is None else actions).encode(),
        layout.COMPONENT: component,
        layout.README: b"# Hello\n",
    }


def make_bundle(
    folder: Path,
    manifest: str | None = None,
    component: bytes = EMPTY_COMPONENT,
    actions: list[dict[str, Any]] | None = None,
) -> Path:
    """Write a small app's bundle into `folder`, and return its path. Its name does not depend on its contents."""
    path = folder / f"app-{len(list(folder.iterdir())) if folder.exists() else 0}{layout.SUFFIX}"
    write_bundle(bundle_files(manifest, component, actions), path)
    return path
