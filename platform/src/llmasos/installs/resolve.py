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
from llmasos.i18n import Message, _, listing
from llmasos.installs.source import Candidate, ReleaseSource

# Real graphs take tens of steps. A maliciously explosive graph is abandoned here, within a second.
MAX_STEPS: Final = 20_000
MAX_APPS: Final = 100


_NO_FIT: Final = _("it does not fit")


@dataclass(frozen=True, slots=True)
class Requirement:
    """An app, and the versions of it that are acceptable."""

    app_id: str
    specifier: SpecifierSet = field(default_factory=SpecifierSet)
    wanted_by: str = ""
    """The app and version that needs it; empty if the user asked for it."""
    prereleases: bool = False

    def allows(self, version: str) -> bool:
        """Whether this version satisfies it. Pre-releases do only if they were asked for explicitly."""
        wanted = self.prereleases or bool(self.specifier.prereleases)
        return self.specifier.contains(Version(version), prereleases=wanted)

    @property
    def named_version(self) -> str | None:
        """The single version that it names, if any."""
        pins = list(self.specifier)
        return pins[0].version if len(pins) == 1 and pins[0].operator == "==" else None

    @property
    def message(self) -> Message:
        """Say who needs which version."""
        version = str(self.specifier) or _("any version")
        if self.wanted_by:
            return _("{dependent} needs {version}", dependent=self.wanted_by, version=version)
        return _("you asked for {version}", version=version)


def parse_requirement(text: str) -> Requirement:
    """`acme/x`, `acme/x@1.2.0` or `acme/x>=1,<2`.

    Raises:
        Invalid: It has none of these forms.
    """
    match = re.fullmatch(rf"(?P<app>{APP_ID.pattern})(?:@(?P<version>.+)|(?P<specifier>[<>=!~].*))?", text.strip())
    if match is None:
        raise Invalid(
            _(
                "{text} names no app: write publisher/name, publisher/name@1.2.0 or 'publisher/name>=1,<2'",
                text=f"{text!r:.100}",
            ),
        )
    try:
        if match["version"]:
            return Requirement(match["app"], SpecifierSet(f"=={Version(match['version'])}"))
        return Requirement(match["app"], SpecifierSet(match["specifier"] or ""))
    except (InvalidSpecifier, InvalidVersion):
        raise Invalid(
            _("{text} names no version: write {app}@1.2.0 or '{app}>=1,<2'", text=f"{text!r:.100}", app=match["app"]),
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
        root: The app to install.
        source: Provides releases.
        host_version: Checked against `compat.llmasos`.
        locked: Releases to prefer; a yanked one is chosen only if it is locked.
        installed: Installed apps, which stay as they are even if they were yanked since.
        dependents: The requirements of installed apps on the root.

    Raises:
        NotFound: There is no such app.
        Conflict: No choice satisfies all requirements; the message says who needs what.
    """
    search = _Search(source, Version(host_version), locked or {}, installed or {})
    found = search.solve([root], {}, {root.app_id: (root, *dependents)})
    if found is None:
        raise search.failure or Conflict(_("no release of {app} fits", app=root.app_id))
    return found


class _Search:
    """A depth-first search with backtracking, over apps in the order of their discovery."""

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
        """Return the choice that satisfies all requirements, or None, with the reason in `failure`."""
        while waiting and waiting[0].app_id in chosen:
            waiting = waiting[1:]
        if not waiting:
            return chosen
        if len(chosen) >= MAX_APPS:
            raise Conflict(
                _("more than {max_apps} apps depend on each other here: depend on fewer", max_apps=MAX_APPS),
            )
        app = waiting[0].app_id
        candidates = list(self._fitting(app, wanted[app]))
        if not candidates:
            self._explain(app, wanted[app])
        for candidate in candidates:
            self.steps += 1
            if self.steps > MAX_STEPS:
                raise Conflict(
                    _(
                        "no fitting set of releases found in {max_steps} tries: narrow the versions asked for",
                        max_steps=MAX_STEPS,
                    ),
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
        """The eligible releases: the locked one first, then the newest."""
        usable = [c for c in self._releases(app) if not self._hindrance(c, wanted)]
        lock = self.locked.get(app)
        yield from (c for c in usable if lock and c.version == lock.version)
        yield from (c for c in usable if not lock or c.version != lock.version)

    def _hindrance(self, candidate: Candidate, wanted: tuple[Requirement, ...]) -> Message | None:
        """Why a release is not eligible; None if it is."""
        misfit = _misfit(candidate, wanted)
        if candidate.app_id in self.installed:
            # Only `upgrade` replaces an installed app.
            upgrade = f"`llmasos upgrade {candidate.app_id}`"
            return misfit and _("it is installed, and stays until {upgrade}", upgrade=upgrade)
        return self._withheld(candidate) or misfit

    def _withheld(self, candidate: Candidate) -> Message | None:
        lock = self.locked.get(candidate.app_id)
        if lock is not None and lock.version == candidate.version and lock.digest != candidate.digest:
            return _("its bytes are not those in the lock")
        if candidate.quarantined:
            return _("it is quarantined")
        if candidate.yanked and (lock is None or lock.version != candidate.version):
            return _("it was yanked")
        compat = candidate.manifest.compat.llmasos
        fits = SpecifierSet(compat).contains(self.host, prereleases=True)
        if fits:
            return None
        return _("it needs llmasos {compat}, and this is {host}", compat=compat, host=self.host)

    def _explain(self, app: str, wanted: tuple[Requirement, ...]) -> None:
        """Record the first failure: it concerns the newest releases, as the reader expects."""
        if self.failure is not None:
            return
        who = listing(dict.fromkeys(need.message for need in wanted), "; ")
        releases = self._releases(app)
        if not releases:
            dependent = wanted[0].wanted_by
            said = (
                _("{dependent} depends on it: publish it first", dependent=dependent)
                if dependent
                else _("see `llmasos search`")
            )
            self.failure = NotFound(_("there is no app {app}; {said}", app=app, said=said))
            return
        reasons = [
            _("{version}: {reason}", version=each.version, reason=self._hindrance(each, wanted) or _NO_FIT)
            for each in releases[:5]
        ]
        if len(releases) > 5:
            reasons.append(_("and {older} older", older=len(releases) - 5))
        self.failure = Conflict(
            _(
                "no release of {app} fits ({needs}). There are {reasons}",
                app=app,
                needs=who,
                reasons=listing(reasons, "; "),
            )
        )


def no_such_release(app_id: str, version: str, versions: Sequence[str]) -> NotFound:
    """The error for a release that does not exist; it lists the existing ones, newest first."""
    shown = listing([*versions[:8], *(["…"] if len(versions) > 8 else [])])
    return NotFound(
        _(
            "{app} has no release {version}; it has {shown}: see `llmasos show {app}`.",
            app=app_id,
            version=version,
            shown=shown,
        ),
    )


def _misfit(candidate: Candidate, wanted: tuple[Requirement, ...]) -> Message | None:
    if all(need.allows(candidate.version) for need in wanted):
        return None
    in_range = all(need.specifier.contains(candidate.version, prereleases=True) for need in wanted)
    if in_range and Version(candidate.version).is_prerelease:
        return _("it is a pre-release (name its version to choose it)")
    return _NO_FIT


def _needs(candidate: Candidate) -> list[Requirement]:
    by = f"{candidate.app_id} {candidate.version}"
    return [
        Requirement(app, SpecifierSet(specifier), by)
        for app, specifier in sorted(candidate.manifest.dependencies.items())
    ]
