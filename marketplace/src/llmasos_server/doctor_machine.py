"""The part of `llmasos doctor` that examines the machine: the embedded model, confinement, tools."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from llmasos.errors import LlmasosError
from llmasos.i18n import Message, _, listing

Status: TypeAlias = Literal["ok", "note", "problem"]

# The least confinement of a component runner besides WebAssembly.
REQUIRED_MECHANISMS: Final = ("landlock", "seccomp")


@dataclass(frozen=True, slots=True)
class Finding:
    """The finding on one part. A note needs no action; a problem has its cure."""

    part: str
    status: Status
    message: Message


def check_model(home: Path) -> Finding:
    """Check whether the embedded model's weights are present."""
    from llmasos.gateway.embedded.weights import SMOLLM2_WEIGHTS  # noqa: PLC0415

    if SMOLLM2_WEIGHTS.is_present(home / "models"):
        return Finding("model", "ok", _("The embedded model is here."))
    return Finding(
        "model",
        "note",
        _("The embedded model is fetched at first use; llmasos models pull smollm2 does it now."),
    )


async def check_confinement() -> AsyncGenerator[Finding]:
    """Start a runner like any app's, and ask what confines it."""
    from llmasos.authoring.describe import closed  # noqa: PLC0415
    from llmasos.runtimes.component import ComponentRuntime  # noqa: PLC0415
    from llmasos.settings import Settings  # noqa: PLC0415

    # Outside of the home, which may be missing or read-only.
    with tempfile.TemporaryDirectory(prefix="llmasos-doctor-") as folder:
        runtime = ComponentRuntime(Settings(home=Path(folder)), closed)
        try:
            await runtime.warm()
            mechanisms = runtime.confinement
        except LlmasosError as error:
            yield Finding("runners", "problem", _("A runner does not start: {error}", error=error.message))
            return
        finally:
            await runtime.close()
    missing = [name for name in REQUIRED_MECHANISMS if not any(each.startswith(name) for each in mechanisms)]
    listed = ", ".join(mechanisms)
    if missing:
        yield Finding(
            "runners",
            "problem",
            _(
                "The system's own confinement is missing ({missing}): components run behind WebAssembly "
                "alone, native apps do not start. Use Linux 5.19 or newer.",
                missing=listing(missing),
            ),
        )
    else:
        yield Finding("runners", "ok", _("Runners are confined: {listed}.", listed=listed))


def check_trusted(home: Path) -> Iterator[Finding]:
    """Name the apps that the operator allowed to run without confinement."""
    from llmasos.settings import Settings  # noqa: PLC0415

    trusted = Settings(home=home).trusted_apps
    if trusted:
        yield Finding(
            "runners",
            "note",
            _(
                "If the system cannot confine them, these apps of trusted_apps run with all of your rights: {apps}.",
                apps=listing(trusted),
            ),
        )


def check_tools() -> Iterator[Finding]:
    """Check the tools that authors may want; running apps needs none of them."""
    for tool, without in (
        ("node", _("apps in JavaScript cannot be built")),
        ("uv", _("native apps cannot be built or installed")),
    ):
        if shutil.which(tool):
            yield Finding("tools", "ok", _("{tool} is there.", tool=tool))
        else:
            yield Finding("tools", "note", _("Without {tool}, {without}.", tool=tool, without=without))
