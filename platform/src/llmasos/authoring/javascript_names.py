"""The names that a JavaScript or TypeScript source uses and nothing defines, by the type checker among jco's tools.

It is asked for names alone: the types of a JavaScript source are nobody's promise, and an author checks those of a
TypeScript source as their own `tsconfig.json` says.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from llmasos.authoring import javascript
from llmasos.authoring.check import ProjectFinding
from llmasos.authoring.process import BuildFailed
from llmasos.authoring.project import Project, source_files
from llmasos.i18n import _

_OPTIONS: Final = (
    "--ignoreConfig", "--noEmit", "--pretty", "false", "--allowJs", "--checkJs", "--skipLibCheck", "--types", "",
    "--lib", "esnext", "--target", "esnext", "--module", "esnext", "--moduleResolution", "bundler",
    "--allowImportingTsExtensions",
)  # fmt: skip
_DIAGNOSTIC: Final = re.compile(
    r"^(?P<file>[^\n(]+)\((?P<line>\d+),(?P<column>\d+)\): error TS(?P<code>\d+): (?P<said>.*)$", re.M
)
# "Cannot find name": plainly; with a guess of what was meant; or of what another platform has.
_UNDEFINED: Final = frozenset(
    {"2304", "2552", "2580", "2581", "2582", "2583", "2584", "2591", "2592", "2593", "2662", "2663", "2868", "18004"}
)
_NAME: Final = re.compile(r"'(?P<name>[^']+)'")


async def undefined_names(project: Project) -> list[ProjectFinding]:
    """Find the names in a project's source, and in the files that it imports, that nothing defines.

    None in a language that is neither JavaScript nor TypeScript.

    Raises:
        Unavailable: Node.js is missing, or the tools cannot be fetched.
    """
    source = project.root / (project.manifest.runtime.source or "")
    if source.suffix not in javascript.SUFFIXES:
        return []
    tools = await javascript.toolchain()
    declarations = [path for path in source_files(source.parent) if path.name.endswith(".d.ts")]
    known = javascript.sdk_folder() / "src" / "globals.d.ts"
    command: list[str | Path] = [tools / "node_modules" / "typescript" / "bin" / "tsc", *_OPTIONS, known, *declarations]
    try:
        await javascript.run_node(project.root, "tsc", [*command, source])
    except BuildFailed as error:
        return _findings(project.root, error.detail)
    return []


def _findings(root: Path, said: str) -> list[ProjectFinding]:
    found: list[ProjectFinding] = []
    texts: dict[str, str] = {}
    for each in _DIAGNOSTIC.finditer(said):
        named, file = _NAME.search(each["said"]), each["file"]
        path = (root / file).resolve()
        is_own = path.is_relative_to(root) and "node_modules" not in path.parts
        if each["code"] not in _UNDEFINED or named is None or not is_own:
            continue
        text = texts.setdefault(file, path.read_text(encoding="utf-8", errors="replace"))
        if re.search(rf"\btypeof\s+{re.escape(named['name'])}\b", text):
            continue  # the author asks whether it is defined
        if _is_in_comment(text.splitlines()[int(each["line"]) - 1][: int(each["column"]) - 1]):
            continue  # a type of JSDoc
        message = _("the name {name!r} is used, and nothing defines it: import or define it", name=named["name"])
        found.append(ProjectFinding("error", f"{path.relative_to(root).as_posix()}, line {each['line']}", message))
    return found


def _is_in_comment(before: str) -> bool:
    """Whether what follows on a line is in a comment, such as JSDoc has them."""
    return before.lstrip().startswith(("*", "//")) or before.rfind("/*") > before.rfind("*/")
