"""Looks at every part of a home, and says what to do about what is wrong.

It changes nothing, besides freeing what dead processes held, as every start of a host does.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from sqlmodel import Session, col, select

from llmasos.database.schema import check_revision, database_file, newest_revision, open_to_read, revision_of
from llmasos.errors import LlmasosError
from llmasos.i18n import t

Status: TypeAlias = Literal["ok", "note", "problem"]

# What confines a component runner besides WebAssembly, at least.
REQUIRED_MECHANISMS: Final = ("landlock", "seccomp")


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one part. A note needs no action; a problem has its cure."""

    part: str
    status: Status
    en: str
    zh: str = ""

    def text(self, locale: str) -> str:
        """The sentence in a locale."""
        return t(locale, self.en, self.zh or self.en)


async def examine(home: Path, url: str) -> AsyncGenerator[Finding]:
    """Examine a home part by part, the cheap ones first.

    Args:
        home: The home; it may be missing.
        url: The database's URL.
    """
    yield check_home(home)
    schema = check_schema(url)
    yield schema
    if schema.status == "ok":
        async for finding in _inside(home, url):
            yield finding
    yield check_model(home)
    async for finding in _confinement():
        yield finding
    for finding in check_tools():
        yield finding


def check_home(home: Path) -> Finding:
    """Whether the home is there, is its owner's alone, and can be written."""
    if not home.exists():
        return Finding(
            "home",
            "note",
            f"{home} is not there yet: run llmasos quickstart.",
            f"{home} 尚不存在：请运行 llmasos quickstart。",
        )
    if not os.access(home, os.W_OK | os.X_OK):
        return Finding(
            "home",
            "problem",
            f"{home} cannot be written: change its owner, or set LLMASOS_HOME.",
            f"{home} 不可写：请更改其所有者，或设置 LLMASOS_HOME。",
        )
    if home.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return Finding(
            "home",
            "problem",
            f"Others may write to {home}: run chmod 700 {home}",
            f"他人可写入 {home}：请运行 chmod 700 {home}",
        )
    free = shutil.disk_usage(home).free >> 20
    if free < 200:
        return Finding(
            "home",
            "problem",
            f"Only {free} MiB are free at {home}: make room.",
            f"{home} 仅剩 {free} MiB：请腾出空间。",
        )
    return Finding("home", "ok", f"{home} can be written; {free:,} MiB are free.", f"{home} 可写；剩余 {free:,} MiB。")


def check_schema(url: str) -> Finding:
    """Whether the database has the schema of this code."""
    try:
        found = revision_of(url)
        if found is None:
            return Finding(
                "database",
                "note",
                "There is no database yet; the first command that keeps something makes it.",
                "尚无数据库；首次写入时会自动创建。",
            )
        if check_revision(found):
            return Finding("database", "ok", f"Its schema is {found}, the newest.", f"结构版本 {found}，为最新。")
    except LlmasosError as error:
        return Finding("database", "problem", error.message, error.message_zh)
    return Finding(
        "database",
        "problem",
        f"Its schema is {found}, older than {newest_revision()}: run llmasos migrate.",
        f"结构版本 {found} 较旧：请运行 llmasos migrate。",
    )


async def _inside(home: Path, url: str) -> AsyncGenerator[Finding]:
    from sqlalchemy.exc import OperationalError  # noqa: PLC0415

    from llmasos.database.engine import Database  # noqa: PLC0415  (a home without a database is examined without SQLAlchemy)
    from llmasos.host import Host  # noqa: PLC0415
    from llmasos.settings import Settings  # noqa: PLC0415

    for finding in check_integrity(url):
        yield finding
        if finding.status == "problem":
            return
    if not os.access(home, os.W_OK):  # which `check_home` told; what follows frees what dead processes held
        return
    database = Database(url)
    try:
        # What dead processes held is freed whenever a host starts, so it is freed before it is looked for.
        host = Host(Settings(home=home, plugins="off"), database)
        async with host.invocations:
            pass
        await host.close()
        with database.read() as session:
            yield check_audit(session)
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
            f"The database cannot be used ({error.orig}): make room on its disk, or see who owns it.",
            f"数据库无法使用（{error.orig}）：请腾出磁盘空间，或检查其所有者。",
        )
    finally:
        database.close()


def check_integrity(url: str) -> Iterator[Finding]:
    """Whether SQLite finds its file whole."""
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
            f"The database is damaged ({said[0]}): put a copy back.",
            f"数据库已损坏（{said[0]}）：请恢复备份。",
        )
    elif broken:
        yield Finding(
            "integrity",
            "problem",
            f"{len(broken)} rows refer to others that are gone (first in {broken[0][0]}): put a copy back.",
            f"{len(broken)} 行引用了不存在的数据：请恢复备份。",
        )
    else:
        yield Finding("integrity", "ok", "The database is whole.", "数据库完整。")


def check_audit(session: Session) -> Finding:
    """Whether the audit log is as it was written."""
    from llmasos.kernel.audit import verify  # noqa: PLC0415

    found = verify(session)
    if not found.intact:
        return Finding(
            "audit",
            "problem",
            f"The audit log was changed: {found.reason}. Keep the database as evidence, and see llmasos audit verify.",
            f"审计日志被更改：{found.reason_zh}。请保留数据库作为证据，并运行 llmasos audit verify。",
        )
    return Finding(
        "audit",
        "ok",
        f"{found.lines} lines of the audit log follow each other.",
        f"审计日志 {found.lines} 行，前后一致。",
    )


def check_held(session: Session) -> Iterator[Finding]:
    """Whether the ledger adds up, and anything is held by a process that is no more."""
    from llmasos.database.leases import living  # noqa: PLC0415
    from llmasos.kernel.tables import InvocationRow  # noqa: PLC0415
    from llmasos.quotas import doctor as ledger  # noqa: PLC0415

    now = int(time.time())
    found = ledger.check(session, now)
    for fault in found:
        yield Finding("ledger", "problem", fault.en, fault.zh)
    alive = living(session, now)
    running = session.exec(select(InvocationRow).where(col(InvocationRow.status) == "running"))
    lost = sum(row.lease_id not in alive for row in running)
    if lost:
        yield Finding(
            "ledger",
            "problem",
            f"{lost} invocations belong to no living process: run llmasos doctor again in half a minute.",
            f"{lost} 个调用不属于任何存活进程：请半分钟后再次运行 llmasos doctor。",
        )
    if not found and not lost:
        yield Finding(
            "ledger",
            "ok",
            "The ledger adds up, and no reservation is stuck.",
            "账本一致，没有滞留的预留。",
        )


def check_bundles(session: Session, home: Path) -> Iterator[Finding]:
    """Whether every release has its bundle, whole. A bundle without a release does no harm."""
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
                f"The bundle of {app_id} {version} is gone or damaged: publish it again.",
                f"{app_id} {version} 的包丢失或损坏：请重新发布。",
            )
    if not wrong:
        yield Finding("bundles", "ok", f"{len(rows)} releases have their bundles.", f"{len(rows)} 个版本的包均完好。")


def check_installs(session: Session, home: Path) -> Iterator[Finding]:
    """Whether what is installed fits together."""
    from llmasos.installs import doctor as installs  # noqa: PLC0415

    found = installs.check(session, home)
    for each in found:
        yield Finding("installs", "problem", each.text("en"), each.text("zh"))
    if not found:
        yield Finding("installs", "ok", "What is installed fits together.", "已安装的应用一切正常。")


async def check_prepared(session: Session, home: Path) -> AsyncGenerator[Finding]:
    """Whether what is installed is ready to run; what is not is prepared when it is run."""
    from llmasos.authoring.describe import in_runners  # noqa: PLC0415
    from llmasos.installs import doctor as installs  # noqa: PLC0415
    from llmasos.settings import Settings  # noqa: PLC0415

    async with in_runners(Settings(home=home)) as runners:
        waiting, found = await installs.unprepared(session, runners.of)
    for each in found:
        yield Finding("installs", "problem", each.text("en"), each.text("zh"))
    if waiting:
        listed = ", ".join(waiting)
        yield Finding(
            "installs",
            "note",
            f"Not prepared for this version of LLMasOS yet: {listed}. The next run of each prepares it.",
            f"尚未为此版本的 LLMasOS 准备好：{listed}。下次运行时会自动准备。",
        )


def check_model(home: Path) -> Finding:
    """Whether the embedded model is here."""
    from llmasos.gateway.embedded.weights import SMOLLM2_WEIGHTS  # noqa: PLC0415

    if SMOLLM2_WEIGHTS.is_present(home / "models"):
        return Finding("model", "ok", "The embedded model is here.", "内置模型已就绪。")
    return Finding(
        "model",
        "note",
        "The embedded model is fetched at first use; llmasos models pull smollm2 does it now.",
        "内置模型将在首次使用时下载；也可运行 llmasos models pull smollm2。",
    )


async def _confinement() -> AsyncGenerator[Finding]:
    """Start a runner as any app's, and ask what confines it."""
    from llmasos.authoring.describe import closed  # noqa: PLC0415
    from llmasos.runtimes.component import ComponentRuntime  # noqa: PLC0415
    from llmasos.settings import Settings  # noqa: PLC0415

    # Elsewhere than in the home, which may be missing or may not be written.
    with tempfile.TemporaryDirectory(prefix="llmasos-doctor-") as folder:
        runtime = ComponentRuntime(Settings(home=Path(folder)), closed)
        try:
            await runtime.warm()
            mechanisms = runtime.confinement
        except LlmasosError as error:
            text = f"A runner does not start: {error.message}"
            yield Finding("runners", "problem", text, f"运行器无法启动：{error.message_zh}")
            return
        finally:
            await runtime.close()
    missing = [name for name in REQUIRED_MECHANISMS if not any(each.startswith(name) for each in mechanisms)]
    listed = ", ".join(mechanisms)
    if missing:
        yield Finding(
            "runners",
            "problem",
            f"The system's own confinement is missing ({', '.join(missing)}): components run behind WebAssembly alone, "
            "native apps do not start. Use Linux 5.19 or newer.",
            f"缺少第二道防护（{', '.join(missing)}）：组件仅由 WebAssembly 隔离，原生应用无法启动。"
            "请使用 Linux 5.19 或更新版本。",
        )
    else:
        yield Finding("runners", "ok", f"Runners are confined: {listed}.", f"运行器已隔离：{listed}。")


def check_tools() -> Iterator[Finding]:
    """What authors may want besides; nothing that runs needs it."""
    for tool, en, zh in (
        ("node", "apps in JavaScript cannot be built", "无法构建 JavaScript 应用"),
        ("uv", "native apps cannot be built or installed", "无法构建或安装原生应用"),
    ):
        if shutil.which(tool):
            yield Finding("tools", "ok", f"{tool} is there.", f"已找到 {tool}。")
        else:
            yield Finding("tools", "note", f"Without {tool}, {en}.", f"没有 {tool}，{zh}。")
