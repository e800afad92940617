"""Publishes to the local catalog: a release is stored with its bundle, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from llmasos.bundles.reader import Bundle, bundle_of, read_bytes
from llmasos.database.engine import WriteSession
from llmasos.errors import Conflict
from llmasos.i18n import _, from_text, to_text
from llmasos.kernel.audit import Line, record
from llmasos.plugins import Plugins
from llmasos.runtimes.runtime import Runtime
from llmasos_marketplace.catalog import repository
from llmasos_marketplace.catalog.names import check_name
from llmasos_marketplace.catalog.repository import NewRelease
from llmasos_marketplace.catalog.service import Catalog
from llmasos_marketplace.catalog.tables import Release
from llmasos_marketplace.publishing.checks import Report, check_release, raise_failures


@dataclass(frozen=True, slots=True)
class Publication:
    """The result of publishing. `changed` is False if the same bytes were published before."""

    app_id: str
    version: str
    digest: str
    state: str
    state_reason: str
    changed: bool
    report: Report | None
    """None if nothing had to be checked."""


class Publishing:
    """Publishes bundles to a catalog."""

    def __init__(self, catalog: Catalog, runtime_of: Callable[[str], Runtime], plugins: Plugins | None = None) -> None:
        """`plugins` are the operator's plugins, which may also check releases."""
        self.catalog = catalog
        self._runtime_of = runtime_of
        self._plugins = plugins

    async def publish(
        self,
        path: Path,
        *,
        by: str,
        workspace: str = "default",
        first_party: bool = False,
        checked_imports: tuple[str, ...] | None = None,
    ) -> Publication:
        """Check and offer a bundle.

        The bundle's file is stored first and its row is written afterwards, in one transaction: if it is stopped
        anywhere, the release exists with its bundle or does not exist; a file without a row is harmless.

        Args:
            path: The bundle.
            by: The publishing user.
            workspace: The workspace whose audit log records it.
            first_party: Whether the embedded catalog is being seeded, which alone may use its namespace.
            checked_imports: The binary's imports, if it came with this package and was checked when the package was
                built; None checks it in the sandbox now.

        Raises:
            NotFound: There is no such file.
            BundleRejected, ManifestRejected, ComponentRejected: A check failed; nothing is published.
            NameTaken, NamespaceReserved: The name is too similar to a known one, or is reserved.
            Conflict: The version exists with other bytes.
        """
        # Read once, so that the checked bytes are the stored ones even if the file changes.
        data = await asyncio.to_thread(read_bytes, path)
        bundle = await asyncio.to_thread(bundle_of, data)
        known = await asyncio.to_thread(self._check_against_catalog, bundle, first_party)
        if known is not None and known.state != "quarantined":
            return _unchanged(known)
        report = await check_release(bundle, self._runtime_of, self._plugins, checked_imports=checked_imports)
        raise_failures(bundle, report)
        return await asyncio.to_thread(self._keep, bundle, data, report, Line(workspace, by, "publish"), first_party)

    def _check_against_catalog(self, bundle: Bundle, first_party: bool) -> Release | None:
        with self.catalog.database.read() as session:
            check_name(bundle.manifest.id, repository.app_ids(session), first_party=first_party)
            known = repository.release(session, bundle.manifest.id, bundle.manifest.version)
        if known is not None and known.digest != bundle.digest:
            raise _other_bytes(known)
        return known

    def _keep(self, bundle: Bundle, data: bytes, report: Report, line: Line, first_party: bool) -> Publication:
        self.catalog.store.put(data)
        reason = to_text(report.reason)
        new = NewRelease(bundle, list(report.imports), line.user, report.state, reason)
        manifest = bundle.manifest
        with self.catalog.database.write() as session:
            # Checked again under the write lock: another process may have published in the meantime.
            check_name(manifest.id, repository.app_ids(session), first_party=first_party)
            known = repository.release(session, manifest.id, manifest.version)
            if known is not None and known.digest != bundle.digest:
                raise _other_bytes(known)
            if known is None:
                repository.add_release(session, new, datetime.now(UTC))
            elif known.state == "quarantined":
                self._recheck(session, known, new)
            else:
                return _unchanged(known)
            record(session, _audited(line, bundle, report))
        return Publication(manifest.id, manifest.version, bundle.digest, report.state, report.reason, True, report)

    def _recheck(self, session: WriteSession, known: Release, new: NewRelease) -> None:
        known.state, known.state_reason, known.imports = new.state, new.state_reason, new.imports
        session.add(known)
        shown = repository.app(session, known.app_id)
        if shown is not None:
            repository.refresh_app(session, shown, datetime.now(UTC))


def _audited(line: Line, bundle: Bundle, report: Report) -> Line:
    detail = {"version": bundle.manifest.version, "digest": bundle.digest, "state": report.state}
    return Line(line.workspace, line.user, line.event, app=bundle.manifest.id, detail=detail)


def _unchanged(row: Release) -> Publication:
    return Publication(row.app_id, row.version, row.digest, row.state, from_text(row.state_reason), False, None)


def _other_bytes(known: Release) -> Conflict:
    return Conflict(
        _(
            "{app} {version} is published already with other contents ({digest}), and a release never "
            "changes: raise `version` in llmapp.toml.",
            app=known.app_id,
            version=known.version,
            digest=known.digest[:12],
        ),
    )
