"""The lock of a native app: pinned, hashed, and without addresses."""

from __future__ import annotations

import re
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement

from llmasos.errors import BundleRejected

MAX_REQUIREMENTS: Final = 300
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
_CURE = "lock it again with `llmasos build`"
_CURE_ZH = "请用 `llmasos build` 重新锁定"


def check_lock(text: str) -> None:
    """Check that a `requirements.txt` can be built into an environment.

    Raises:
        BundleRejected: A line is no pinned and hashed requirement, names an address, or is an option.
    """
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    pinned = [line for line in lines if line and not line.startswith("#")]
    if len(pinned) > MAX_REQUIREMENTS:
        raise BundleRejected(
            f"requirements.txt pins {len(pinned)} packages; the limit is {MAX_REQUIREMENTS}",
            zh=f"requirements.txt 锁定了 {len(pinned)} 个包；上限为 {MAX_REQUIREMENTS} 个",
        )
    for line in pinned:
        _check_line(line.split(" #")[0])


def _check_line(line: str) -> None:
    said = f"requirements.txt in the bundle: {line[:80]!r}"
    requirement_text, *hashes = re.split(r"\s+(?=--)", line)
    if requirement_text.startswith("-"):
        raise BundleRejected(
            f"{said} is an option, and only pinned packages may stand there: {_CURE}",
            zh=f"{said} 是一个选项，而此处只能写锁定版本的包：{_CURE_ZH}",
        )
    try:
        requirement = Requirement(requirement_text)
    except InvalidRequirement:
        raise BundleRejected(
            f"{said} is not a requirement: {_CURE}", zh=f"{said} 不是有效的依赖项：{_CURE_ZH}"
        ) from None
    if requirement.url is not None:
        raise BundleRejected(
            f"{said} names an address: publish it as a package and pin its version",
            zh=f"{said} 写的是地址：请将它发布为包并锁定版本",
        )
    pins = [specifier for specifier in requirement.specifier if specifier.operator in {"==", "==="}]
    if len(requirement.specifier) != 1 or not pins or "*" in pins[0].version:
        raise BundleRejected(
            f"{said} is not pinned to one version: {_CURE}", zh=f"{said} 没有锁定到单一版本：{_CURE_ZH}"
        )
    if not hashes or not all(_HASH.fullmatch(each.strip()) for each in hashes):
        raise BundleRejected(f"{said} has no sha256 hash: {_CURE}", zh=f"{said} 没有 sha256 哈希：{_CURE_ZH}")
