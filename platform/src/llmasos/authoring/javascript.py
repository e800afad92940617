"""JavaScript and TypeScript source to a component, by jco with QuickJS.

jco comes by npm, once, pinned with the hash of every package it needs, into the home. A build stages the source, the
SDK and the world below one folder, since jco takes its WIT by a relative path, and bundles TypeScript on its way.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import importlib.util
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from llmasos.authoring import wit
from llmasos.authoring.process import BuildFailed, run_tool
from llmasos.authoring.project import source_files
from llmasos.authoring.sourcemap import guest_map, places
from llmasos.errors import Unavailable
from llmasos.home import default_home, make_private_folder
from llmasos.i18n import _
from llmasos.runtimes.prepared import size_bytes

SUFFIXES = frozenset({".js", ".mjs", ".ts", ".mts"})
NODE_MAJOR = 20
_ABANDONED_SECONDS = 3600
# What stands before the body of a `new Function` in its source: `(function anonymous(name`, `) {`.
_FUNCTION_LINES = 2
# The author's files for a development run: a function body, which gets the SDK that is in the component already.
DEVELOPMENT_BUNDLING = """\
export default {
  input: "app-entry.js",
  platform: "neutral",
  external: ["@llmasos/sdk"],
  resolve: { mainFields: ["module", "main"] },
  output: {
    file: "source.js", format: "iife", name: "llmasos_app", exports: "named",
    globals: { "@llmasos/sdk": "llmasos_sdk" }, sourcemap: "hidden",
  },
};
"""
# One module of the entry, the author's files (TypeScript's types stripped) and the SDK. jco's own `--bundle` cannot
# read a WIT folder outside of the paths that its copy of wasm-tools has open.
BUNDLING = """\
export default {
  input: "entry.js",
  platform: "neutral",
  external: [/^llmasos:/],
  // A neutral platform looks at `exports` alone; older packages name their file as `module` or `main`.
  resolve: { mainFields: ["module", "main"] },
  output: { file: "bundle.js", format: "esm", sourcemap: "hidden" },
};
"""


def entry_source(module: str, interfaces: Iterable[str]) -> str:
    """The entry module of a component: `module` is the author's, relative to it."""
    named = sorted(interfaces)
    imports = "".join(f'import * as {name} from "{wit.interface_id(name)}";\n' for name in named)
    return f"""\
{imports}import * as source from {json.dumps(module)};
import {{ handler as make }} from "./sdk/guest.js";

const {{ default: standard, app: named }} = source;
const app = standard ?? named;
if (typeof app?.describe !== "function") throw new Error("write `export default app;` in the source");
export const handler = make(app, {{ {", ".join(named)} }});
"""


def development_entry_source(interfaces: Iterable[str]) -> str:
    """The entry module of a component whose calls hand over the app's source."""
    named = sorted(interfaces)
    imports = "".join(f'import * as {name} from "{wit.interface_id(name)}";\n' for name in named)
    return f"""\
{imports}import * as sdk from "./sdk/index.js";
import {{ development }} from "./sdk/guest.js";

export const handler = development(sdk, {{ {", ".join(named)} }});
"""


def sdk_folder() -> Path:
    """The sources of the JavaScript SDK: inside the installed Python one, or beside it in a checkout.

    Raises:
        Unavailable: They are in neither place.
    """
    spec = importlib.util.find_spec("llmasos_sdk")
    if spec is not None and spec.origin is not None:
        package = Path(spec.origin).parent
        for folder in (package / "js", package.parent.parent / "js"):
            if (folder / "src" / "guest.js").is_file():
                return folder
    raise Unavailable(
        _("the JavaScript SDK is missing: pip install --force-reinstall llmasos-sdk"),
    )


def install_sdk(project: Path) -> None:
    """Put the SDK where a project's tests and the type checker find it, unless this version of it is there."""
    wanted = sdk_folder()
    installed = project / "node_modules" / "@llmasos" / "sdk"
    if _contents(installed) == _contents(wanted):
        return
    shutil.rmtree(installed, ignore_errors=True)
    shutil.copytree(wanted, installed, ignore=shutil.ignore_patterns("test", "node_modules"))


def _contents(sdk: Path) -> dict[str, bytes]:
    files = [sdk / "package.json", *(sdk / "src").rglob("*")]
    return {path.relative_to(sdk).as_posix(): path.read_bytes() for path in files if path.is_file()}


def stage(source: Path, capabilities: frozenset[str], folder: Path) -> None:
    """Lay out what jco reads: the world, the entry, the author's files, and the SDK.

    The bundled packages are in the folder already, in `node_modules`.
    """
    wit.write_world(capabilities, folder / "wit")
    for path in source_files(source.parent):
        if ".test." in path.name:
            continue
        target = folder / "src" / path.relative_to(source.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    sdk = sdk_folder()
    shutil.copytree(sdk / "src", folder / "sdk", ignore=shutil.ignore_patterns("testing.js", "fakes", "*.d.ts"))
    package = folder / "node_modules" / "@llmasos" / "sdk"
    shutil.rmtree(package, ignore_errors=True)  # the app's tests may have one from npm
    package.mkdir(parents=True)
    shutil.copyfile(sdk / "package.json", package / "package.json")
    # Links would make two copies of the SDK of one: the entry's and the author's must share their errors.
    described = json.loads((package / "package.json").read_text(encoding="utf-8"))
    described["exports"] = {".": "./src/index.js"}
    (package / "package.json").write_text(json.dumps(described), encoding="utf-8")
    (package / "src").mkdir()
    (package / "src" / "index.js").write_text('export * from "../../../../sdk/index.js";\n', encoding="utf-8")
    (folder / "package.json").write_text('{"type": "module"}\n', encoding="utf-8")
    entry = entry_source(f"./src/{source.name}", wit.imported(capabilities))
    (folder / "entry.js").write_text(entry, encoding="utf-8")
    (folder / "rolldown.config.mjs").write_text(BUNDLING, encoding="utf-8")


async def stage_development(source: Path, capabilities: frozenset[str], folder: Path) -> dict[str, object]:
    """Lay out the component of development runs as `stage` does, without the source and its packages.

    Returns:
        The source in the form that this component reads: `code`, one script, and its `map`.

    Raises:
        BuildFailed: The source does not bundle; the message has the author's own error.
        Unavailable: Node.js is missing, or the tools cannot be fetched.
    """
    stage(source, capabilities, folder)
    entry = f'import * as source from "./src/{source.name}";\nexport const app = source.default ?? source.app;\n'
    (folder / "app-entry.js").write_text(entry, encoding="utf-8")
    (folder / "development.config.mjs").write_text(DEVELOPMENT_BUNDLING, encoding="utf-8")
    await bundle(folder, "development.config.mjs")
    code = (folder / "source.js").read_text(encoding="utf-8")
    source_map = guest_map(folder / "source.js.map", "<input>", _FUNCTION_LINES)
    for name in ("src", "node_modules"):
        shutil.rmtree(folder / name)
    for name in ("app-entry.js", "development.config.mjs", "source.js", "source.js.map"):
        (folder / name).unlink()
    (folder / "entry.js").write_text(development_entry_source(wit.imported(capabilities)), encoding="utf-8")
    return {"code": code, "map": source_map}


def node() -> str:
    """The path of Node.js.

    Raises:
        Unavailable: It is missing, or too old.
    """
    found = shutil.which("node")
    if found is None:
        raise _needed("Node.js")
    version = _version(found)
    if (major := re.match(r"v(\d+)", version)) is None or int(major[1]) < NODE_MAJOR:
        raise Unavailable(
            _("Node.js {version} is too old: install {node_major} or later.", version=version, node_major=NODE_MAJOR),
        )
    return found


@cache
def _version(path: str) -> str:
    return subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout.strip()


def _npm() -> str:
    found = shutil.which("npm")
    if found is None:
        raise _needed("npm")
    return found


def _needed(missing: str) -> Unavailable:
    return Unavailable(
        _(
            "Building a JavaScript app needs {missing}: install Node.js {node_major} or later, with npm. "
            "Apps in Python build without it, and built apps run without it.",
            missing=missing,
            node_major=NODE_MAJOR,
        ),
    )


def toolchain_digest() -> str:
    """What the pinned tools are known by."""
    return hashlib.sha256(_pins("pins.json")).hexdigest()[:16]


def _pins(name: str) -> bytes:
    return (importlib.resources.files("llmasos.authoring") / "jco" / name).read_bytes()


async def toolchain(home: Path | None = None) -> Path:
    """The folder with jco, fetched by npm at first use; whole or not there at all.

    Raises:
        Unavailable: Node.js or npm is missing, or the packages cannot be fetched.
    """
    node()
    npm = _npm()
    tools = (home or default_home()) / "tools"
    ready = tools / f"jco-{toolchain_digest()}"
    if ready.is_dir():
        return ready
    make_private_folder(tools)
    making = Path(tempfile.mkdtemp(prefix=".jco-", dir=tools))
    try:
        # The pins are a lock of npm's without addresses, under a name of their own: locks with addresses stay out.
        for source, name in (("package.json", "package.json"), ("pins.json", "package-lock.json")):
            (making / name).write_bytes(_pins(source))
        try:
            # Not `npm ci`: it wants the optional binaries of every platform in the lock, and npm writes only those
            # that the registry at hand has. What is in the lock is held to its hash by `npm install` too.
            flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            await run_tool([npm, "install", *flags], cwd=making, what="npm install")
        except BuildFailed as error:
            raise Unavailable(
                _(
                    "The JavaScript tools cannot be fetched by npm: {error}. Check the network and try again.",
                    error=error.message,
                ),
            ) from error
        try:
            making.rename(ready)
        except OSError:
            if not ready.is_dir():  # unless another build was first, the fault is real
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return ready


def collect_toolchains(home: Path) -> int:
    """Remove the tools of other versions, and what killed fetches left; returns how many bytes that freed."""
    freed = 0
    for folder in (home / "tools").glob("*jco-*"):
        is_abandoned = time.time() - folder.lstat().st_mtime > _ABANDONED_SECONDS
        if is_abandoned and folder.name != f"jco-{toolchain_digest()}":
            freed += size_bytes(folder)
            shutil.rmtree(folder, ignore_errors=True)
    return freed


_EVALUATION = re.compile(r"JavaScript module evaluation: (?P<said>.+)")


_BUNDLING = re.compile(r"\[[A-Z_]+\] (?P<said>[^\n]+)(?:\n[^\n]*\[ src/(?P<file>[^:\]]+):(?P<line>\d+))?")


# In the author's own files: a package may name what it does without.
_UNRESOLVED = re.compile(r"\[UNRESOLVED_IMPORT\] [^\n]* in src/")


def _authors_error(error: BuildFailed, staged: Path) -> BuildFailed:
    """The error of the author's code when it was run once, with the author's own line; else the tool's error."""
    if bundling := _BUNDLING.search(error.detail):
        place = f" ({bundling['file']}, line {bundling['line']})" if bundling["file"] else ""
        message = re.sub(r" in src/\S+$", "", bundling["said"].strip())[:300] + place
        return BuildFailed(_("the source does not build: {error}", error=message), detail=error.detail)
    evaluated = _EVALUATION.search(error.detail)
    if evaluated is None:
        return BuildFailed(_("the source does not build: {error}", error=error.message), detail=error.detail)
    where = places(error.detail, staged / "bundle.js.map", "src")
    message = evaluated["said"].strip()[:300] + (f" ({where[0]})" if where else "")
    return BuildFailed(_("the source does not run: {error}", error=message), detail=error.detail)


async def bundle(staged: Path, configuration: str = "rolldown.config.mjs") -> None:
    """Make one script of the files of a staged folder.

    Raises:
        BuildFailed: The source does not bundle; the message has the author's own error.
        Unavailable: Node.js is missing, or the tools cannot be fetched.
    """
    rolldown = await toolchain() / "node_modules" / "rolldown" / "bin" / "cli.mjs"
    output = await run_node(staged, "rolldown", [rolldown, "-c", configuration])
    if _UNRESOLVED.search(output):  # it only warns, and what is made then fails with less to say
        raise _authors_error(BuildFailed(detail=output), staged)


async def componentize(staged: Path) -> bytes:
    """The component of a staged folder.

    Raises:
        BuildFailed: The source does not bundle or run; the message has the author's own error.
        Unavailable: Node.js is missing, or the tools cannot be fetched.
    """
    await bundle(staged)
    source_map = json.dumps(guest_map(staged / "bundle.js.map", "/bundle.js"))
    with (staged / "bundle.js").open("a", encoding="utf-8") as script:
        script.write(f"\nglobalThis.llmasosMap = {source_map};\n")
    jco = await toolchain() / "node_modules" / "@bytecodealliance" / "jco" / "dist" / "jco.js"
    options = ("--wit", "wit", "--world-name", wit.WORLD, "--out", "app.wasm")
    backend = ("--backend", "qjs", "--backend-qjs-stub-wasi")
    await run_node(staged, "jco componentize", [jco, "componentize", "bundle.js", *options, *backend])
    return (staged / "app.wasm").read_bytes()


async def run_node(staged: Path, what: str, command: list[str | Path]) -> str:
    """Run one of the tools in a folder, and return its output.

    Raises:
        BuildFailed: It failed; the message has the author's own error.
        Unavailable: Node.js is missing.
    """
    try:
        return await run_tool([node(), *command], cwd=staged, what=what, env={"NO_COLOR": "1"})
    except BuildFailed as error:
        raise _authors_error(error, staged) from None
