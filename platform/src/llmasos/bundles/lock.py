"""The lock of a native app: pinned, hashed, and without addresses."""

from __future__ import annotations

import re
from typing import Final

from llmasos.errors import BundleRejected
from llmasos.i18n import _

MAX_REQUIREMENTS: Final = 300
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
_CURE = _("lock it again with `llmasos build`")


def check_lock(text: str) -> None:
    """Check that a `requirements.txt` can be built into an environment.

    Raises:
        BundleRejected: A line is not a pinned and hashed requirement, names an address, or is an option.
    """
    pinned = locked_lines(text)
    if len(pinned) > MAX_REQUIREMENTS:
        raise BundleRejected(
            _(
                "requirements.txt pins {count} packages; the limit is {max_requirements}",
                count=len(pinned),
                max_requirements=MAX_REQUIREMENTS,
            ),
        )
    for line in pinned:
        _check_line(line)


def locked_lines(text: str) -> list[str]:
    """The requirements of a lock, each on one line, without comments.

    Raises:
        BundleRejected: A comment ends in a backslash: what follows it is a comment for some readers, and read by uv.
    """
    for line in text.splitlines():
        if "#" in line and line.rstrip().endswith("\\"):
            raise BundleRejected(
                _(
                    "requirements.txt in the bundle: {line!r} is a comment that goes on in the next line: {cure}",
                    line=line[:80],
                    cure=_CURE,
                ),
            )
    lines = (line.strip() for line in text.replace("\\\n", " ").splitlines())
    return [line.split(" #")[0] for line in lines if line and not line.startswith("#")]


def _check_line(line: str) -> None:
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415 - a run spares it

    said = _("requirements.txt in the bundle: {line!r}", line=line[:80])
    requirement_text, *hashes = re.split(r"\s+(?=--)", line)
    if requirement_text.startswith("-"):
        raise BundleRejected(
            _("{said} is an option, and only pinned packages may stand there: {cure}", said=said, cure=_CURE),
        )
    try:
        requirement = Requirement(requirement_text)
    except InvalidRequirement:
        raise BundleRejected(_("{said} is not a requirement: {cure}", said=said, cure=_CURE)) from None
    if requirement.url is not None:
        raise BundleRejected(
            _("{said} names an address: publish it as a package and pin its version", said=said),
        )
    pins = [specifier for specifier in requirement.specifier if specifier.operator in {"==", "==="}]
    if len(requirement.specifier) != 1 or not pins or "*" in pins[0].version:
        raise BundleRejected(_("{said} is not pinned to one version: {cure}", said=said, cure=_CURE))
    if not hashes or not all(_HASH.fullmatch(each.strip()) for each in hashes):
        raise BundleRejected(_("{said} has no sha256 hash: {cure}", said=said, cure=_CURE))
