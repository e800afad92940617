"""Projects of apps, written by tests."""

from pathlib import Path

from llmasos.bundles.testing import manifest_text

STORAGE = '\n[[permissions]]\ncapability = "storage"\nreason.en = "Counts."\n'
MODEL = '\n[[permissions]]\ncapability = "model"\ntiers = ["fast"]\nreason.en = "Answers."\n'


def write_project(folder: Path, files: dict[str, str], runtime: str, permissions: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    manifest = manifest_text(extra=permissions).replace('kind = "wasm"\nsource = "app.py"', runtime)
    for name, text in {"llmapp.toml": manifest, "README.md": "# It\n", **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


WORDS = "def shout(text: str) -> str:\n    return text.upper()\n"
