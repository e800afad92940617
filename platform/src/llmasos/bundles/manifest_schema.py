"""The JSON Schema of `llmapp.toml`, for editors.

    python -m llmasos.bundles.manifest_schema > sdk/src/llmasos_sdk/llmapp.schema.json

It describes each key; `llmasos check` checks the rules between keys.
"""

from __future__ import annotations

import json
import sys

from llmasos.bundles.manifest import Manifest


def manifest_schema() -> str:
    """Return the schema as JSON text, with a final line feed."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema(by_alias=True)}
    return json.dumps({**schema, "title": "llmapp.toml"}, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(manifest_schema())
