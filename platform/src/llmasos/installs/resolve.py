"""Chooses the releases of an install. Pure, apart from listing releases in the source."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from llmasos.bundles.parts import APP_ID
from llmasos.errors import Conflict, Invalid, NotFound
from llmasos.i18n import Words
from llmasos.installs.source import Candidate, ReleaseSource

# Real graphs take tens of steps. A graph made to explode is given up here, within a second.
MAX_STEPS: Final = 20_000
MAX_APPS: Final = 100


_NO_FIT: Final[Words] = ("it does not fit", "不符合要求")


@dataclass(frozen=True, slots=True)
class Requirement:
    """An app, and which of its versions will do."""

    app_id: str
    specifier: SpecifierSet = field(default_factory=SpecifierSet)
    wanted_by: str = ""
    """The app and version that needs it; empty if the user asked for it."""
    prereleases: bool = False

    def allows(self, version: str) -> bool:
        """Whether this version satisfies it. Pre-releases do only if they were asked for."""
        wanted = self.prereleases or bool(self.specifier.prereleases)
        return self.specifier.contains(Version(version), prereleases=wanted)

    @property
    def named_version(self) -> str | None:
        """The one version that satisfies it, if it names one."""
        pins = list(self.specifier)
        return pins[0].version if len(pins) == 1 and pins[0].operator == "==" else None

    def __str__(self) -> str:
        who = self.wanted_by or "you"
        return f"{who} {'needs' if self.wanted_by else 'asked for'} {self.specifier or 'any version'}"

    @property
    def in_chinese(self) -> str:
        """The same in Chinese."""
        return f"{self.wanted_by or '你'} 需要{f' {self.specifier}' if self.specifier else '任意版本'}"


def parse_requirement(text: str) -> Requirement:
    """`acme/x`, `acme/x@1.2.0` or `acme/x>=1,<2`.

    Raises:
        Invalid: It is none of these.
    """
    match = re.fullmatch(rf"(?P<app>{APP_ID.pattern})(?:@(?P<version>.+)|(?P<specifier>[<>=!~].*))?", text.strip())
    if match is None:
        raise Invalid(
            f"{text!r:.100} names no app: write publisher/name, publisher/name@1.2.0 or 'publisher/name>=1,<2'",
            zh=f"{text!r:.100} 不是应用名称：请写成 publisher/name、publisher/name@1.2.0 或 'publisher/name>=1,<2'",
        )
    try:
        if match["version"]:
            return Requirement(match["app"], SpecifierSet(f"=={Version(match['version'])}"))
        return Requirement(match["app"], SpecifierSet(match["specifier"] or ""))
    except (InvalidSpecifier, InvalidVersion):
        raise Invalid(
            f"{text!r:.100} names no version: write {match['app']}@1.2.0 or '{match['app']}>=1,<2'",
            zh=f"{text!r:.100} 不是有效的版本写法：请写成 {match['app']}@1.2.0 或 '{match['app']}>=1,<2'",
        ) from None


@dataclass(frozen=True, slots=True)
class LockedRelease:
    """A release that a lock names."""

    version: str
    digest: str


def lock_of(chosen: Mapping[str, Candidate], root: str) -> dict[str, dict[str, str]]:
    """The lock of an installation: each dependency's version and digest."""
    return {
        app: {"version": candidate.version, "digest": candidate.digest}
        for app, candidate in sorted(chosen.items())
        if app != root
    }


def resolve(
    root: Requirement,
    source: ReleaseSource,
    host_version: str,
    *,
    locked: Mapping[str, LockedRelease] | None = None,
    installed: Mapping[str, Candidate] | None = None,
    dependents: tuple[Requirement, ...] = (),
) -> dict[str, Candidate]:
    """Choose a release of an app and of everything it depends on, newest first, one version of each app.

    Args:
        root: What is installed.
        source: Where releases come from.
        host_version: Held against `compat.llmasos`.
        locked: Releases to prefer; a yanked one is chosen only if it is locked.
        installed: Installed apps, which stay as they are even if they were yanked since.
        dependents: What installed apps need of the root.

    Raises:
        NotFound: There is no such app.
        Conflict: No choice fits, with who wants what.
    """
    search = _Search(source, Version(host_version), locked or {}, installed or {})
    found = search.solve([root], {}, {root.app_id: (root, *dependents)})
    if found is None:
        raise search.failure or Conflict(f"no release of {root.app_id} fits", zh=f"没有合适的 {root.app_id} 版本")
    return found


class _Search:
    """A depth-first search with backtracking, over apps in the order in which they are needed."""

    def __init__(
        self,
        source: ReleaseSource,
        host: Version,
        locked: Mapping[str, LockedRelease],
        installed: Mapping[str, Candidate],
    ) -> None:
        self.source, self.host, self.locked, self.installed = source, host, locked, installed
        self.steps = 0
        self.failure: Conflict | NotFound | None = None
        self.listed: dict[str, list[Candidate]] = {}

    def solve(
        self,
        waiting: list[Requirement],
        chosen: dict[str, Candidate],
        wanted: dict[str, tuple[Requirement, ...]],
    ) -> dict[str, Candidate] | None:
        """The choice that satisfies all, or None with `failure` saying why the last one did not."""
        while waiting and waiting[0].app_id in chosen:
            waiting = waiting[1:]
        if not waiting:
            return chosen
        if len(chosen) >= MAX_APPS:
            raise Conflict(
                f"more than {MAX_APPS} apps depend on each other here: depend on fewer",
                zh=f"此处相互依赖的应用超过 {MAX_APPS} 个：请减少依赖",
            )
        app = waiting[0].app_id
        candidates = list(self._fitting(app, wanted[app]))
        if not candidates:
            self._explain(app, wanted[app])
        for candidate in candidates:
            self.steps += 1
            if self.steps > MAX_STEPS:
                raise Conflict(
                    f"no fitting set of releases found in {MAX_STEPS} tries: narrow the versions asked for",
                    zh=f"尝试 {MAX_STEPS} 次后仍未找到合适的版本组合：请缩小所要求的版本范围",
                )
            needs = _needs(candidate)
            clash = next((n for n in needs if n.app_id in chosen and not n.allows(chosen[n.app_id].version)), None)
            if clash is not None:
                self._explain(clash.app_id, (*wanted[clash.app_id], clash))
                continue
            also = dict(wanted)
            for need in needs:
                also[need.app_id] = (*also.get(need.app_id, ()), need)
            found = self.solve([*waiting[1:], *needs], {**chosen, app: candidate}, also)
            if found is not None:
                return found
        return None

    def _releases(self, app: str) -> list[Candidate]:
        if app in self.installed:
            return [self.installed[app]]
        if app not in self.listed:
            self.listed[app] = sorted(self.source.releases(app), key=lambda c: Version(c.version), reverse=True)
        return self.listed[app]

    def _fitting(self, app: str, wanted: tuple[Requirement, ...]) -> Iterator[Candidate]:
        """Releases that may be chosen: the locked one first, then the newest."""
        usable = [c for c in self._releases(app) if not self._hindrance(c, wanted)]
        lock = self.locked.get(app)
        yield from (c for c in usable if lock and c.version == lock.version)
        yield from (c for c in usable if not lock or c.version != lock.version)

    def _hindrance(self, candidate: Candidate, wanted: tuple[Requirement, ...]) -> Words | None:
        """Why a release may not be chosen; None if it may."""
        misfit = _misfit(candidate, wanted)
        if candidate.app_id in self.installed:
            # Only `upgrade` replaces an installed app.
            upgrade = f"`llmasos upgrade {candidate.app_id}`"
            return misfit and (f"it is installed, and stays until {upgrade}", f"已安装，运行 {upgrade} 才会更换")
        return self._withheld(candidate) or misfit

    def _withheld(self, candidate: Candidate) -> Words | None:
        lock = self.locked.get(candidate.app_id)
        if lock is not None and lock.version == candidate.version and lock.digest != candidate.digest:
            return "its bytes are not those in the lock", "其内容与锁文件不符"
        if candidate.quarantined:
            return "it is quarantined", "已被隔离"
        if candidate.yanked and (lock is None or lock.version != candidate.version):
            return "it was yanked", "已被撤回"
        compat = candidate.manifest.compat.llmasos
        fits = SpecifierSet(compat).contains(self.host, prereleases=True)
        if fits:
            return None
        return f"it needs llmasos {compat}, and this is {self.host}", f"需要 llmasos {compat}，而当前为 {self.host}"

    def _explain(self, app: str, wanted: tuple[Requirement, ...]) -> None:
        """Keep the first failure: it is about the newest releases, which the reader expects."""
        if self.failure is not None:
            return
        who = "; ".join(dict.fromkeys(str(need) for need in wanted))
        who_zh = "；".join(dict.fromkeys(need.in_chinese for need in wanted))
        releases = self._releases(app)
        if not releases:
            dependent = wanted[0].wanted_by
            said = f"{dependent} depends on it: publish it first" if dependent else "see `llmasos search`"
            said_zh = f"{dependent} 依赖它：请先发布它" if dependent else "用 `llmasos search` 查找"
            self.failure = NotFound(f"there is no app {app}; {said}", zh=f"没有应用 {app}；{said_zh}")
            return
        reasons = [(c.version, *(self._hindrance(c, wanted) or _NO_FIT)) for c in releases[:5]]
        older = len(releases) - 5
        more, more_zh = (f", and {older} older", f"，另有 {older} 个更早的版本") if older > 0 else ("", "")
        self.failure = Conflict(
            f"no release of {app} fits ({who}). There are {'; '.join(f'{v}: {en}' for v, en, _ in reasons)}{more}",
            zh=f"没有合适的 {app} 版本（{who_zh}）。现有 {'；'.join(f'{v}：{zh}' for v, _, zh in reasons)}{more_zh}",
        )


def no_such_release(app_id: str, version: str, versions: Sequence[str]) -> NotFound:
    """The error for a release that does not exist, with those that do, newest first."""
    shown = ", ".join(versions[:8]) + (" …" if len(versions) > 8 else "")
    return NotFound(
        f"{app_id} has no release {version}; it has {shown}: see `llmasos show {app_id}`.",
        zh=f"{app_id} 没有版本 {version}；现有版本：{shown}。可用 `llmasos show {app_id}` 查看。",
    )


def _misfit(candidate: Candidate, wanted: tuple[Requirement, ...]) -> Words | None:
    if all(need.allows(candidate.version) for need in wanted):
        return None
    in_range = all(need.specifier.contains(candidate.version, prereleases=True) for need in wanted)
    if in_range and Version(candidate.version).is_prerelease:
        return "it is a pre-release (name its version to take it)", "是预发布版本（如需使用请写明版本）"
    return _NO_FIT


def _needs(candidate: Candidate) -> list[Requirement]:
    by = f"{candidate.app_id} {candidate.version}"
    return [
        Requirement(app, SpecifierSet(specifier), by)
        for app, specifier in sorted(candidate.manifest.dependencies.items())
    ]
