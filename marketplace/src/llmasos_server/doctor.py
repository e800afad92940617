"""Examines every part of a home, and names the cure of each problem.

It changes nothing, except that it frees what dead processes held, as every start of a host does.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path

from sqlmodel import Session, col, select

from llmasos.database.schema import check_revision, database_file, newest_revision, open_to_read, revision_of
from llmasos.errors import LlmasosError
from llmasos.home_access import close_access, lost_key
from llmasos.i18n import _, listing, ngettext
from llmasos_server.doctor_machine import Finding, check_confinement, check_model, check_tools, check_trusted
from llmasos_server.host_log import FILE_NAME


async def examine(home: Path, url: str) -> AsyncGenerator[Finding]:
    """Examine a home part by part, the cheap checks first.

    Args:
        home: The home; it may be missing.
        url: The database's URL.
    """
    yield check_home(home)
    for status, message in close_access(home):
        yield Finding("home", status, message)
    yield check_log(home)
    for finding in check_sizes(home):
        yield finding
    schema = check_schema(url)
    for finding in check_server(url):
        yield finding
    yield schema
    if schema.status == "ok":
        async for finding in _inside(home, url):
            yield finding
    yield check_model(home)
    async for finding in check_confinement():
        yield finding
    for finding in (*check_trusted(home), *check_tools()):
        yield finding


def check_home(home: Path) -> Finding:
    """Check that the home exists, is accessible to its owner alone, and can be written."""
    if not home.exists():
        return Finding(
            "home",
            "note",
            _("{home} is not there yet: run llmasos quickstart.", home=home),
        )
    if not os.access(home, os.W_OK | os.X_OK):
        return Finding(
            "home",
            "problem",
            _("{home} cannot be written: change its owner, or set LLMASOS_HOME.", home=home),
        )
    free = shutil.disk_usage(home).free >> 20
    if free < 200:
        return Finding(
            "home",
            "problem",
            _("Only {free} MiB are free at {home}: make room.", free=free, home=home),
        )
    return Finding("home", "ok", _("{home} can be written; {free:,} MiB are free.", home=home, free=free))


def check_log(home: Path) -> Finding:
    """Say where the host's own log is."""
    file = home / FILE_NAME
    if not file.exists():
        return Finding("log", "ok", _("The host has logged nothing yet; it would log to {file}.", file=file))
    when = datetime.fromtimestamp(file.stat().st_mtime).astimezone()
    return Finding(
        "log",
        "ok",
        _("The host's log is {file}; its last line is of {when}.", file=file, when=f"{when:%Y-%m-%d %H:%M}"),
    )


def check_sizes(home: Path) -> Iterator[Finding]:
    """Report the size of each part of the home, the largest first."""
    sizes = {path.name: _size_bytes(path) >> 20 for path in home.iterdir()} if home.is_dir() else {}
    largest = sorted(((size, name) for name, size in sizes.items() if size), reverse=True)
    if largest:
        yield Finding(
            "disk",
            "ok",
            _(
                "The home takes {total:,} MiB: {listed}.",
                total=sum(size for size, _name in largest),
                listed=listing([f"{name} {size:,}" for size, name in largest]),
            ),
        )


def _size_bytes(path: Path) -> int:
    found = 0
    for each in (path, *path.rglob("*")) if path.is_dir() and not path.is_symlink() else (path,):
        with suppress(OSError):  # a temporary file disappears
            found += each.lstat().st_size
    return found


def check_schema(url: str) -> Finding:
    """Check that the database has the schema of this code."""
    try:
        found = revision_of(url)
        if found is None:
            return Finding(
                "database",
                "note",
                _("There is no database yet; the first command that stores something creates it."),
            )
        if check_revision(found):
            return Finding("database", "ok", _("Its schema is {found}, the newest.", found=found))
    except LlmasosError as error:
        return Finding("database", "problem", error.message)
    return Finding(
        "database",
        "problem",
        _(
            "Its schema is {found}, older than {newest_revision}: run llmasos migrate.",
            found=found,
            newest_revision=newest_revision(),
        ),
    )


def check_server(url: str) -> Iterator[Finding]:
    """Check a database server; reports nothing about SQLite or an unreachable server."""
    if url.startswith("sqlite"):
        return
    from llmasos.database.server import faults  # noqa: PLC0415  (SQLAlchemy, which a home with SQLite need not import)

    try:
        found = faults(url)
    except LlmasosError:
        return  # the finding on the schema reports this
    for fault in found:
        yield Finding("database", "problem", fault)
    if not found:
        yield Finding("database", "ok", _("The server responds; its version, encoding and privileges are right."))


async def _inside(home: Path, url: str) -> AsyncGenerator[Finding]:
    from sqlalchemy.exc import OperationalError  # noqa: PLC0415

    from llmasos.database.engine import Database  # noqa: PLC0415  (a home without a database is examined without SQLAlchemy)
    from llmasos.host import Host  # noqa: PLC0415
    from llmasos.settings import Settings  # noqa: PLC0415

    for finding in check_integrity(url):
        yield finding
        if finding.status == "problem":
            return
    if not os.access(home, os.W_OK):  # `check_home` reports this; what follows frees what dead processes held
        return
    database = Database(url)
    try:
        # What dead processes held is freed whenever a host starts, so it is freed before the check.
        host = Host(Settings(home=home, plugins="off"), database)
        async with host.invocations:
            pass
        await host.close()
        with database.read() as session:
            yield check_audit(session)
            if (message := lost_key(session, home)) is not None:
                yield Finding("home", "problem", message)
            for finding in check_held(session):
                yield finding
            for finding in check_bundles(session, home):
                yield finding
            for finding in check_installs(session, home):
                yield finding
            async for finding in check_prepared(session, home):
                yield finding
    except OperationalError as error:
        yield Finding(
            "database",
            "problem",
            _(
                "The database cannot be used ({reason}): free space on its disk, or check who owns the file.",
                reason=error.orig,
            ),
        )
    finally:
        database.close()


def check_integrity(url: str) -> Iterator[Finding]:
    """Check the integrity of SQLite's file."""
    file = database_file(url)
    if file is None:
        return
    try:
        with closing(open_to_read(file)) as connection:
            said = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
            broken = connection.execute("PRAGMA foreign_key_check").fetchall()
    except sqlite3.DatabaseError as error:
        said, broken = [str(error)], []
    if said != ["ok"]:
        yield Finding(
            "integrity",
            "problem",
            _("The database is damaged ({said}): restore a backup.", said=said[0]),
        )
    elif broken:
        yield Finding(
            "integrity",
            "problem",
            ngettext(
                "{count} row refers to another that is gone (in {broken}): restore a backup.",
                "{count} rows refer to others that are gone (first in {broken}): restore a backup.",
                count=len(broken),
                broken=broken[0][0],
            ),
        )
    else:
        yield Finding("integrity", "ok", _("The database is whole."))


def check_audit(session: Session) -> Finding:
    """Check that the audit log is unchanged."""
    from llmasos.kernel.audit import verify  # noqa: PLC0415

    found = verify(session)
    if not found.intact:
        return Finding(
            "audit",
            "problem",
            _(
                "The audit log was changed: {reason}. Keep the database as evidence, and see llmasos audit verify.",
                reason=found.reason,
            ),
        )
    return Finding(
        "audit",
        "ok",
        ngettext(
            "The audit log is as it was written: {count:,} line.",
            "The audit log is as it was written: {count:,} lines.",
            count=found.lines,
        ),
    )


def check_held(session: Session) -> Iterator[Finding]:
    """Check that the ledger adds up, and that no dead process holds anything."""
    from llmasos.database.leases import living  # noqa: PLC0415
    from llmasos.invocations.tables import InvocationRow  # noqa: PLC0415
    from llmasos.quotas import doctor as ledger  # noqa: PLC0415

    found = ledger.check(session)
    for fault in found:
        yield Finding("ledger", "problem", fault.message)
    alive = living(session)
    running = session.exec(select(InvocationRow).where(col(InvocationRow.status) == "running"))
    lost = sum(row.lease_id not in alive for row in running)
    if lost:
        yield Finding(
            "ledger",
            "problem",
            ngettext(
                "{count} invocation belongs to no living process: run llmasos doctor again in half a minute.",
                "{count} invocations belong to no living process: run llmasos doctor again in half a minute.",
                count=lost,
            ),
        )
    if not found and not lost:
        yield Finding(
            "ledger",
            "ok",
            _("The ledger adds up, and no reservation is stuck."),
        )


def check_bundles(session: Session, home: Path) -> Iterator[Finding]:
    """Check that every release has an undamaged bundle. A bundle without a release is harmless."""
    from llmasos_marketplace.catalog import repository  # noqa: PLC0415
    from llmasos_marketplace.catalog.store import BundleStore  # noqa: PLC0415

    store = BundleStore(home / "bundles")
    rows = repository.release_digests(session)
    wrong = 0
    for app_id, version, digest in rows:
        try:
            sound = store.is_sound(digest)
        except LlmasosError:
            sound = False
        if not sound:
            wrong += 1
            yield Finding(
                "bundles",
                "problem",
                _("The bundle of {app} {version} is gone or damaged: publish it again.", app=app_id, version=version),
            )
    if not wrong:
        yield Finding(
            "bundles",
            "ok",
            ngettext("{count} release has its bundle.", "{count} releases have their bundles.", count=len(rows)),
        )


def check_installs(session: Session, home: Path) -> Iterator[Finding]:
    """Check that installations are consistent."""
    from llmasos.installs import doctor as installs  # noqa: PLC0415

    found = installs.check(session, home)
    for each in found:
        yield Finding("installs", "problem", each.message)
    if not found:
        yield Finding("installs", "ok", _("The installations are consistent."))


async def check_prepared(session: Session, home: Path) -> AsyncGenerator[Finding]:
    """Check that installed apps are prepared; the others are prepared at their next run."""
    from llmasos.authoring.describe import in_runners  # noqa: PLC0415
    from llmasos.installs import doctor as installs  # noqa: PLC0415
    from llmasos.settings import Settings  # noqa: PLC0415

    async with in_runners(Settings(home=home)) as runners:
        waiting, found = await installs.unprepared(session, runners.of)
    for each in found:
        yield Finding("installs", "problem", each.message)
    if waiting:
        listed = ", ".join(waiting)
        yield Finding(
            "installs",
            "note",
            _(
                "Not prepared for this version of LLMasOS yet: {listed}. The next run of each prepares it.",
                listed=listed,
            ),
        )
