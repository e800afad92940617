"""Creates a new app: small, real, and passing `check`, `test` and `build` unchanged."""

from __future__ import annotations

import getpass
import hashlib
import importlib.resources
import re
import shutil
import tempfile
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Literal, TypeAlias

from llmasos.authoring.javascript import install_sdk
from llmasos.bundles.manifest import parse_manifest
from llmasos.errors import Conflict, Invalid
from llmasos.i18n import _

Kind: TypeAlias = Literal["wasm", "python"]
Language: TypeAlias = Literal["python", "javascript", "typescript"]

ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*/[a-z][a-z0-9]*(-[a-z0-9]+)*")
SOURCES: dict[Language, str] = {"python": "app.py", "javascript": "app.js", "typescript": "app.ts"}
_QUICKJS = (
    "It is built into a WebAssembly component with QuickJS; building needs Node.js, running it does not. Modules\n"
    "beside the source go with it; there is no Node API inside."
)
# What the README says about how the app is built.
NOTES: dict[tuple[Kind, Language], str] = {
    ("wasm", "python"): (
        "It is built into a WebAssembly component: the source is imported once, while it is built, and pure Python\n"
        "modules beside `app.py` go with it, as do packages that `llmasos add` brings. There are no files, threads\n"
        "or sockets inside; `ctx` has what there is."
    ),
    ("python", "python"): (
        "It runs as a confined Python process. `llmasos add numpy` names a package under\n"
        "`[runtime]` and pins it, and all that it needs, with their hashes, wheels only."
    ),
    ("wasm", "javascript"): _QUICKJS,
    ("wasm", "typescript"): (
        f"{_QUICKJS} Types are stripped,\n"
        "not checked: `npx -p typescript tsc` checks them, and so do editors, by `tsconfig.json`."
    ),
}


class Filled(Template):
    """A template whose names begin with %%: `$` is JavaScript's own."""

    delimiter = "%%"


def word(text: str) -> str:
    """A text as a publisher or a name may be: lower-case words with hyphens; empty if nothing remains."""
    cleaned = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return cleaned if not cleaned or cleaned[0].isalpha() else f"x-{cleaned}"


def app_id(name: str) -> str:
    """The id of `NAME` or `publisher/NAME`; by default the publisher is this system's user.

    Raises:
        Invalid: It is not such a name; the message offers one.
    """
    if "/" not in name:
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a container's user without a name
            user = ""
        name = f"{word(user) or 'me'}/{name}"
    if not ID.fullmatch(name) or len(name) > 129:
        publisher, __, rest = name.partition("/")
        near = f"{word(publisher) or 'me'}/{word(rest) or 'hello'}"
        raise Invalid(
            _(
                "{name!r} is not an app's name: use lower-case words with hyphens, such as {near}.",
                name=name,
                near=near,
            ),
        )
    return name


def new(name: str, folder: Path, *, kind: Kind = "wasm", language: Language = "python") -> Path:
    """Make a new app in a folder of its name.

    Args:
        name: `NAME` or `publisher/NAME`.
        folder: Where the app's folder is made.
        kind: `wasm` for a component, `python` for a native app.
        language: Of the source; a native app is Python.

    Returns:
        The app's folder.

    Raises:
        Invalid: The name cannot be one, or the kind does not go with the language.
        Conflict: There is something in the folder already.
    """
    if (kind, language) not in NOTES:
        raise Invalid(
            _("A native app is written in Python: leave out --language, or use --runtime wasm."),
        )
    identity = app_id(name)
    short = identity.partition("/")[2]
    target = folder / short
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise Conflict(
            _("{target} is there already: choose another name, or remove it.", target=target),
        )
    values = {
        "id": identity,
        "name": short,
        "title": short.replace("-", " ").title(),
        "letter": short[0].upper(),
        "color": _color(identity),
        "kind": kind,
        "source": SOURCES[language],
        "note": NOTES[kind, language],
    }
    templates = importlib.resources.files("llmasos.authoring") / "templates"
    folder.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{short}-", dir=folder))
    try:
        _write(templates, making, values, skip=set(SOURCES))
        _write(templates / language, making, values, skip=set())
        if language != "python":
            install_sdk(making)  # editors and the type checker find its types
        (making / "gitignore").rename(making / ".gitignore")
        # Editors complete and check the manifest by it.
        schema = importlib.resources.files("llmasos_sdk") / "llmapp.schema.json"
        (making / ".llmapp.schema.json").write_bytes(schema.read_bytes())
        parse_manifest((making / "llmapp.toml").read_text(encoding="utf-8"))
        making.chmod(0o755)
        if target.exists():
            target.rmdir()
        making.rename(target)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return target


def _write(source: Traversable, target: Path, values: dict[str, str], skip: set[str]) -> None:
    for item in source.iterdir():
        if item.name in skip or item.name.startswith("__"):
            continue
        if item.is_dir():
            (target / item.name).mkdir()
            _write(item, target / item.name, values, set())
        else:
            text = Filled(item.read_text(encoding="utf-8")).substitute(values)
            # Python templates end in .txt, so that no tool mistakes them for this project's own sources.
            (target / item.name.removesuffix(".txt")).write_text(text, encoding="utf-8")


def _color(identity: str) -> str:
    """A dark colour of the app's own, on which white letters read."""
    hue = hashlib.sha256(identity.encode()).digest()[0] * 360 // 256
    return f"hsl({hue} 45% 40%)"
