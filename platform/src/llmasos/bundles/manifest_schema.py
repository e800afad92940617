"""The JSON Schema of `llmapp.toml`, for editors.

    python -m llmasos.bundles.manifest_schema > sdk/src/llmasos_sdk/llmapp.schema.json

It describes the shape of each key; what holds between keys is checked by `llmasos check`.
"""

from __future__ import annotations

import json
import sys

from llmasos.bundles.manifest import Manifest


def manifest_schema() -> str:
    """The schema as JSON text, with a line feed at its end."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema(by_alias=True)}
    return json.dumps({**schema, "title": "llmapp.toml"}, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(manifest_schema())
