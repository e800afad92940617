"""Projects of apps, written by tests."""

import subprocess
import sys
from pathlib import Path

from llmasos.authoring import python
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


def error_of_entry(source: Path, staged: Path) -> str:
    """What a component's entry says if it does not import, run by this Python over interfaces without functions.

    componentize-py runs the same entry inside the component; that takes it 10 s of compute.
    """
    staged.mkdir()
    python.stage(source, frozenset(), staged)
    interfaces = staged / "lib" / "wit_world" / "imports"
    interfaces.mkdir(parents=True)
    for name in ("__init__", *python.wit.imported(frozenset()), "types"):
        (interfaces / f"{name}.py").write_text("")
    (staged / "lib" / "componentize_py_types.py").write_text("class Err(Exception):\n    pass\n")
    code = f"import sys; sys.path[:0] = {[str(staged / name) for name in python.FOLDERS]}; import {python.ENTRY}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    return done.stderr
