"""Python source to a component, by componentize-py.

The component's entry module joins the SDK and the author's module. componentize-py imports it once, at build time,
and keeps the memory as it then is: imports cost a run nothing, but no module and no file can be read later. So the
entry also imports what is imported anywhere in the app's source, and keeps its data files; what fails, fails the build.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from llmasos.authoring import tools, wit
from llmasos.authoring.imports import imports_of, is_module, late_in_library, reached_in_packages
from llmasos.authoring.process import BuildFailed, run_tool
from llmasos.authoring.project import source_files
from llmasos.errors import Unavailable
from llmasos.i18n import _

ENTRY = "llmasos_entry"
# componentize-py mounts them by their numbers: the first as `/0`.
PACKAGES = "packages"
FOLDERS = ("entry", "src", "lib", PACKAGES)
RESERVED = frozenset({ENTRY, "wit_world", "llmasos_sdk", "pluggy", "componentize_py_types"})
# The standard library imports these inside functions: for `strptime`, and for texts that are not UTF-8.
ENCODINGS = (
    *("ascii", "big5", "charmap", "cp1251", "cp1252", "cp437", "euc_jp", "euc_kr", "gb18030", "gb2312", "gbk", "idna"),
    *("iso8859_1", "iso8859_15", "koi8_r", "latin_1", "punycode", "raw_unicode_escape", "shift_jis", "unicode_escape"),
    *("utf_16", "utf_16_be", "utf_16_le", "utf_32", "utf_7", "utf_8_sig", "base64_codec", "hex_codec", "zlib_codec"),
)
LATE_IN_LIBRARY = ("_strptime", *(f"encodings.{name}" for name in ENCODINGS))
# In every interpreter of a development run, so that an app that begins to import one of these needs no other.
IN_DEVELOPMENT = (
    *("base64", "bisect", "calendar", "collections", "contextlib", "copy", "csv", "dataclasses", "datetime"),
    *("decimal", "difflib", "enum", "fractions", "functools", "hashlib", "heapq", "html", "io", "itertools", "json"),
    *("math", "operator", "pathlib", "random", "re", "statistics", "string", "textwrap", "time", "typing"),
    *("unicodedata", "urllib.parse", "uuid"),
)


def entry_source(module: str, interfaces: Iterable[str], imports: AppImports, *, has_packages: bool = False) -> str:
    """The entry module of a component.

    Args:
        module: The author's.
        interfaces: What the world imports.
        imports: What to import while the component is built, since nothing can be imported when it runs.
        has_packages: Whether packages come along, whose data files are kept like the app's.
    """
    named = sorted(interfaces)
    return f"""\
{_preparations(named, imports)}
app_module = importlib.import_module({module!r})
for name in {sorted(imports.own)!r}:
    importlib.import_module(name)
{_other_imports(imports)}
kept = [guest_files.keep(folder) for folder in (os.path.dirname(app_module.__file__), *{_packages(has_packages)!r})]

from llmasos_sdk.app import find_app
from llmasos_sdk.guest import handler

Handler = handler(find_app(app_module), {{{_table(named)}}}, types, componentize_py_types.Err)
"""


def development_entry_source(interfaces: Iterable[str], imports: AppImports, *, has_packages: bool = False) -> str:
    """The entry module of a component whose calls hand over the app's source; see `entry_source`."""
    named = sorted(interfaces)
    return f"""\
{_preparations(named, imports)}
{_other_imports(imports)}
kept = [guest_files.keep(folder) for folder in {_packages(has_packages)!r}]

from llmasos_sdk.guest_development import handler

Handler = handler({{{_table(named)}}}, types, componentize_py_types.Err)
"""


def _packages(has_packages: bool) -> tuple[str, ...]:
    return (f"/{FOLDERS.index(PACKAGES)}",) if has_packages else ()


def _table(interfaces: Iterable[str]) -> str:
    return ", ".join(f'"{name}": {name}' for name in interfaces)


def _preparations(interfaces: list[str], imports: AppImports) -> str:
    zones = "from llmasos_sdk import guest_zones\n\nzones = guest_zones.keep()\n" if imports.uses_zones else ""
    loop = "from llmasos_sdk import guest_loop\n\nguest_loop.install()\n" if imports.uses_asyncio else ""
    return f"""\
import contextlib
import importlib
import os.path

import componentize_py_types
from wit_world.imports import {", ".join(interfaces)}, types

from llmasos_sdk import guest_files

{loop}{zones}"""


def _other_imports(imports: AppImports) -> str:
    return f"""\
for name, where in {sorted(imports.needed.items())!r}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{{where}}: {{error}}; a component has the standard library, the app's own modules, "
            "and the packages that `llmasos add` brought")
for name in {sorted(imports.optional)!r}:
    with contextlib.suppress(Exception):
        importlib.import_module(name)"""


@dataclass(frozen=True, slots=True)
class AppImports:
    """The modules that an app imports, anywhere in its source."""

    own: frozenset[str]
    """The app's own."""
    needed: Mapping[str, str]
    """Others that it cannot do without, each with the place that imports it."""
    optional: frozenset[str]

    @property
    def uses_zones(self) -> bool:
        """Whether it needs the data of time zones."""
        return "zoneinfo" in self.needed or "zoneinfo" in self.optional

    @property
    def uses_asyncio(self) -> bool:
        """Whether it needs an event loop."""
        return "asyncio" in self.needed or "asyncio" in self.optional


def app_imports(folder: Path, packages: Path | None = None) -> AppImports:
    """What the sources in a folder import.

    Args:
        folder: With all of the app's modules, and nothing else.
        packages: With the packages that come along; what they import is optional.
    """
    sources = {path: _module_name(path.relative_to(folder)) for path in sorted(folder.rglob("*.py"))}
    own = frozenset(name for name in sources.values() if name and name != "setup") - RESERVED
    needed: dict[str, str] = {}
    optional = set(LATE_IN_LIBRARY)
    for path, name in sources.items():
        text = path.read_text(encoding="utf-8", errors="replace")
        for each in imports_of(text, name, is_package=path.name == "__init__.py"):
            if each.optional:
                optional.add(each.module)
            else:
                needed.setdefault(each.module, f"{path.relative_to(folder).as_posix()}, line {each.line}")
    if packages is not None:
        optional |= reached_in_packages(packages, [*needed, *optional])
    optional |= late_in_library([*needed, *optional])
    own_packages = {name.partition(".")[0] for name in own} | RESERVED
    elsewhere = {name: where for name, where in needed.items() if name.partition(".")[0] not in own_packages}
    return AppImports(own, elsewhere, frozenset(optional) - own - RESERVED)


def _module_name(path: Path) -> str:
    """The dotted name of a source; empty if it cannot be imported by one."""
    parts = path.with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts) if parts and all(part.isidentifier() for part in parts) else ""


def stage(source: Path, capabilities: frozenset[str], folder: Path) -> None:
    """Lay out what componentize-py reads: the world, the entry, the author's files, and the SDK.

    The bundled packages are in the folder already, in `packages`.

    Raises:
        BuildFailed: The source's name is taken.
        Unavailable: The app uses time zones, whose data is not installed.
    """
    module = source.stem
    if module in RESERVED or not module.isidentifier():
        raise BuildFailed(
            _("{source} cannot be an app's module: rename it, such as app.py", source=source.name),
        )
    wit.write_world(capabilities, folder / "wit")
    for path in source_files(source.parent):
        target = folder / "src" / path.relative_to(source.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    packages = folder / PACKAGES
    imports = app_imports(folder / "src", packages)
    _stage_sdk(folder, with_zones=imports.uses_zones)
    text = entry_source(module, wit.imported(capabilities), imports, has_packages=packages.is_dir())
    _write_entry(folder, text)


def stage_development(source: Path, capabilities: frozenset[str], folder: Path) -> frozenset[str]:
    """Lay out the component of development runs as `stage` does, for the app of a source, and without the source.

    Returns:
        The app's own modules.

    Raises:
        BuildFailed: The source's name is taken.
        Unavailable: The app uses time zones, whose data is not installed.
    """
    stage(source, capabilities, folder)
    packages = folder / PACKAGES
    imports = app_imports(folder / "src", packages)
    shutil.rmtree(folder / "src")
    (folder / "src").mkdir()
    # Without their lines, which change with every edit: one component serves until the app imports something more.
    needed = {name: where.partition(",")[0] for name, where in imports.needed.items() if name not in IN_DEVELOPMENT}
    named = {name for name in imports.optional if is_module(name, packages)}
    optional = (named | late_in_library(IN_DEVELOPMENT) | set(IN_DEVELOPMENT)) - needed.keys()
    imported = AppImports(frozenset(), needed, frozenset(optional))
    text = development_entry_source(wit.imported(capabilities), imported, has_packages=packages.is_dir())
    _write_entry(folder, text)
    return imports.own


def handed_source(source: Path, own: frozenset[str]) -> dict[str, object]:
    """The source of an app as a component of development runs imports it; see `llmasos_sdk.guest_development.load`.

    Args:
        source: The app's module.
        own: All modules of the app.
    """
    files: dict[str, str] = {}
    data: dict[str, str] = {}
    for path in source_files(source.parent):
        content = path.read_bytes()
        try:
            files[path.relative_to(source.parent).as_posix()] = content.decode()
        except UnicodeDecodeError:
            data[path.relative_to(source.parent).as_posix()] = content.decode("latin-1")
    return {"module": source.stem, "own": sorted(own), "files": files, "data": data}


def _write_entry(folder: Path, text: str) -> None:
    entry = folder / "entry" / f"{ENTRY}.py"
    entry.parent.mkdir(exist_ok=True)
    entry.write_text(text, encoding="utf-8")


def _stage_sdk(folder: Path, *, with_zones: bool) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "wit", "js", "testing.py", "fakes", "pytest_plugin.py")
    for package in ("llmasos_sdk", "pluggy"):
        shutil.copytree(_package_folder(package), folder / "lib" / package, ignore=ignored)
    if with_zones:
        tools.version("tzdata")
        shutil.copytree(_package_folder("tzdata"), folder / "lib" / "tzdata", ignore=ignored)


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise Unavailable(
            _("the package {name} is not installed: pip install llmasos", name=name),
        )
    return Path(spec.origin).parent


async def componentize(staged: Path) -> bytes:
    """The component of a staged folder.

    Raises:
        BuildFailed: The source does not import; the message has the author's own error.
        Unavailable: componentize-py is not installed.
    """
    if importlib.util.find_spec("componentize_py") is None:
        raise tools.missing("componentize-py")
    # It would otherwise put the environment that it runs in on the component's path, and read all of it.
    empty = staged / "venv"
    (empty / "lib" / "site-packages").mkdir(parents=True)
    script = "import sys; from componentize_py import script; sys.argv[0] = 'componentize-py'; sys.exit(script())"
    command = [sys.executable, "-c", script, "-q", "-d", "wit", "-w", wit.WORLD, "componentize", ENTRY]
    paths = [part for folder in FOLDERS if (staged / folder).is_dir() for part in ("-p", folder)]
    try:
        await run_tool(
            [*command, *paths, "-o", "app.wasm"],
            cwd=staged,
            what="componentize-py",
            env={"VIRTUAL_ENV": str(empty)},
        )
    except BuildFailed as error:
        told = _told(error.detail)
        raise BuildFailed(
            _("the source does not import: {error}", error=told) if told else error.message,
            detail=error.detail,
        ) from None
    return (staged / "app.wasm").read_bytes()


_FRAME = re.compile(r'File "/1/(?P<file>[^"]+)", line (?P<line>\d+)')
_RAISED = re.compile(r"^(?:\w+\.)*(?P<error>\w+(?:Error|Exception|Interrupt|Exit)\b.*)$", re.MULTILINE)


def _told(output: str) -> str:
    """The author's own error in componentize-py's output, with the place in the author's file."""
    raised = _RAISED.findall(output)
    if not raised:
        return ""
    frames = list(_FRAME.finditer(output))
    where = f" ({frames[-1]['file']}, line {frames[-1]['line']})" if frames else ""
    return f"{raised[-1][:300]}{where}"
