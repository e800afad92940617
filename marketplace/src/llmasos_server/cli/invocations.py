"""`invocations` and `logs`: what ran, how it ended, and what its app printed; here or on a running server."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol, Self

import typer
from typer.core import TyperGroup

from llmasos.errors import LlmasosError, NotFound
from llmasos.home import WORKSPACE
from llmasos.i18n import _, from_text, render
from llmasos_server.cli.completion import installed_apps
from llmasos_server.cli.home_database import opened_database
from llmasos_server.cli.output import emit_json, locale, note, options, say, say_table, tr
from llmasos_server.cli.remote import Server, named_server, segment

if TYPE_CHECKING:
    from llmasos.database.engine import Database
    from llmasos.invocations.tables import InvocationRow

# As long as it takes to name one of a million with little doubt, and short enough to type.
SHOWN_ID: Final = 12
POLL_SECONDS: Final = 0.5
# How many ended invocations one poll of `logs --follow` can show.
FOLLOWED: Final = 50


@dataclass(frozen=True, slots=True)
class PastRun:
    """One invocation, as it is printed."""

    id: str
    app: str | None
    version: str | None
    action: str
    user: str
    status: str
    code: str | None
    message: str
    started_at: datetime
    ended_at: datetime | None
    duration_ms: int
    model: str | None
    prompt_tokens: int
    completion_tokens: int
    log: str = ""

    @classmethod
    def of_row(cls, row: InvocationRow, *, log: bool) -> Self:
        """As the database of this home keeps it."""
        return cls(
            id=row.id,
            app=row.app_id,
            version=row.version,
            action=row.action,
            user=row.user_id,
            status=row.status,
            code=row.error_code,
            message=render(from_text(row.error_message or ""), locale()),
            started_at=row.started_at.replace(tzinfo=UTC),
            ended_at=row.ended_at.replace(tzinfo=UTC) if row.ended_at else None,
            duration_ms=row.duration_ms,
            model=row.model,
            prompt_tokens=row.prompt_tokens,
            completion_tokens=row.completion_tokens,
            log=row.log if log else "",
        )

    @classmethod
    def of_document(cls, found: Mapping[str, Any]) -> Self:
        """As a server's API returns it."""
        usage: dict[str, Any] = found["usage"]
        error: dict[str, Any] = found["error"] or {}
        return cls(
            id=found["id"],
            app=found["app"],
            version=found["version"],
            action=found["action"],
            user=found["user"],
            status=found["status"],
            code=error.get("code"),
            message=error.get("message", ""),
            started_at=datetime.fromisoformat(found["started_at"]),
            ended_at=datetime.fromisoformat(found["ended_at"]) if found["ended_at"] else None,
            duration_ms=usage["duration_ms"],
            model=usage["model"],
            prompt_tokens=usage["prompt_tokens"],
            completion_tokens=usage["completion_tokens"],
            log=found.get("log", ""),
        )

    @property
    def what(self) -> str:
        """The app's action, or the model call of a user."""
        return f"{self.app} {self.action}" if self.app else self.action

    @property
    def started(self) -> str:
        """When it started, in the user's time zone."""
        return f"{self.started_at.astimezone():%Y-%m-%d %H:%M:%S}"

    @property
    def outcome(self) -> str:
        """How it ended, in the user's language."""
        return {
            "running": tr("running"),
            "succeeded": tr("succeeded"),
            "failed": tr("failed"),
            "cancelled": tr("cancelled"),
        }[self.status]


@dataclass(frozen=True, slots=True)
class RunContent:
    """What an invocation was given and what it returned."""

    kept: bool
    input: Any = None
    output: Any = None
    shown: str = ""
    """What a run that did not succeed had shown by then."""


class History(Protocol):
    """Past invocations, of this home or of a server."""

    def recent(self, app: str | None, limit: int) -> list[PastRun]:
        """The newest, without their logs; the newest first."""
        ...

    def find(self, start: str) -> PastRun:
        """The one whose id starts like this, with its log.

        Raises:
            NotFound: None does, or several do.
        """
        ...

    def content(self, run: PastRun) -> RunContent:
        """What it was given and what it returned, as far as that is kept.

        Raises:
            KeyChanged: It was encrypted under another key.
        """
        ...

    def delete(self, run: PastRun) -> None:
        """Delete what it was given, showed, returned and logged.

        Raises:
            Conflict: It still runs.
        """
        ...


class LocalHistory:
    """What the database of this home holds."""

    def __init__(self, database: Database, workspace: str) -> None:
        self._database = database
        self._workspace = workspace

    def recent(self, app: str | None, limit: int) -> list[PastRun]:
        """See `History.recent`."""
        from llmasos.invocations import records

        with self._database.read() as session:
            rows = records.listing(session, self._workspace, None, limit, app_id=app)
            return [PastRun.of_row(row, log=False) for row in rows]

    def find(self, start: str) -> PastRun:
        """See `History.find`."""
        from llmasos.invocations import records

        with self._database.read() as session:
            rows = records.starting_with(session, self._workspace, start, 2)
            return _only(start, [PastRun.of_row(row, log=True) for row in rows])

    def content(self, run: PastRun) -> RunContent:
        """See `History.content`."""
        from llmasos.home import state_home_and_database_url
        from llmasos.invocations import content
        from llmasos.secrets.sealing import Sealer

        sealer = Sealer.in_home(state_home_and_database_url()[0])
        with self._database.read() as session:
            found = content.read(session, sealer, run.id)
        return RunContent(True, found.input, found.output, found.shown) if found else RunContent(False)

    def delete(self, run: PastRun) -> None:
        """See `History.delete`."""
        from llmasos.invocations import content, records
        from llmasos.kernel.invocation import Principal

        with self._database.write() as session:
            row = records.find(session, run.id, self._workspace, None)
            if row is not None:
                content.delete(session, row, Principal(self._workspace))


class RemoteHistory:
    """What a server shows to the holder of a token."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def recent(self, app: str | None, limit: int) -> list[PastRun]:
        """See `History.recent`."""
        found = self._server.items("/api/v1/invocations", limit, app=app)
        return [PastRun.of_document(item) for item in found]

    def find(self, start: str) -> PastRun:
        """See `History.find`. Only the newest thousand are searched for the start of an id."""
        named = [run.id for run in self.recent(None, 1000) if run.id.startswith(start)] if len(start) < 32 else [start]
        documents = [self._server.get(f"/api/v1/invocations/{segment(id_)}") for id_ in named[:2]]
        return _only(start, [PastRun.of_document(each) for each in documents])

    def content(self, run: PastRun) -> RunContent:
        """See `History.content`."""
        found = self._server.get(f"/api/v1/invocations/{segment(run.id)}/content")
        return RunContent(found["kept"], found["input"], found["output"], found["shown"])

    def delete(self, run: PastRun) -> None:
        """See `History.delete`."""
        self._server.delete(f"/api/v1/invocations/{segment(run.id)}/content")


class ListingGroup(TyperGroup):
    """A group that lists if no part of it is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take `invocations acme/tool` for `invocations list acme/tool`."""
        named = next((word for word in args if not word.startswith("-")), None)
        if named not in self.commands and "--help" not in args:
            args = ["list", *args]
        return list(super().parse_args(ctx, args))


invocations = typer.Typer(cls=ListingGroup, help=tr("List what ran; show or delete its input and output."))


@invocations.command("list")
def list_(
    app: Annotated[
        str | None, typer.Argument(autocompletion=installed_apps, help=tr("An app; without one, all of them."))
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help=tr("How many, the newest."))] = 20,
) -> None:
    """List what ran, and how it ended; the newest first."""
    with opened_history() as history:
        found = history.recent(app, limit)
    if options().json:
        emit_json({"items": [described(run, log=False) for run in found]})
        return
    if not found:
        say(tr("Nothing ran yet."))
        return
    headings = (
        *(tr("id"), tr("started"), tr("what"), tr("result"), tr("seconds")),
        tr("tokens"),
    )
    rows: list[tuple[str, ...]] = [
        (
            *(
                run.id[:SHOWN_ID],
                run.started_at.astimezone().strftime("%y-%m-%d %H:%M"),
                run.what,
                run.code or run.outcome,
            ),
            *(f"{run.duration_ms / 1000:.1f}", f"{run.prompt_tokens + run.completion_tokens:,}"),
        )
        for run in found
    ]
    say_table(rows, headings)


def logs(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[APP|INVOCATION]",
            autocompletion=installed_apps,
            help=tr("An app, or an invocation by the start of its id; without one, everything."),
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help=tr("Go on with what ends from now on."))] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help=tr("How many, the newest."))] = 10,
) -> None:
    """Show what apps printed and logged, and why they failed; the newest last."""
    with opened_history() as history:
        if what is not None and "/" not in what:
            _show([_ended(history, what) if follow else history.find(what)])
            return
        newest = history.recent(what, limit)
        _show(history.find(run.id) for run in reversed(newest) if run.status != "running")
        if not newest and not follow and not options().json:
            note(tr("Nothing ran yet."))
        if follow:
            _follow(history, what)


def note_log(app: str, action: str, error: LlmasosError) -> None:
    """Print the log of an invocation that has just failed on stderr; nothing if it never began."""
    with opened_history() as history:
        for run in history.recent(app, 5):
            if (run.action, run.code) == (action, error.code):
                for line in history.find(run.id).log.splitlines():
                    note(f"  {line}")
                return


def _follow(history: History, app: str | None) -> None:
    """Show invocations as they end, until Ctrl-C."""
    shown = {run.id for run in history.recent(app, FOLLOWED) if run.status != "running"}
    while True:
        time.sleep(POLL_SECONDS)
        ended = [run for run in history.recent(app, FOLLOWED) if run.status != "running" and run.id not in shown]
        shown |= {run.id for run in ended}
        _show(history.find(run.id) for run in sorted(ended, key=lambda run: run.ended_at or run.started_at))


def _ended(history: History, start: str) -> PastRun:
    """One invocation, once it has ended."""
    while (run := history.find(start)).status == "running":
        time.sleep(POLL_SECONDS)
    return run


def _show(runs: Iterable[PastRun]) -> None:
    if options().json:
        for run in runs:
            emit_json(described(run, log=True))
        return
    for run in runs:
        say(headline(run))
        # Indented, so that no app can print what looks like another invocation's line.
        for line in run.log.splitlines():
            say(f"  {line}")
        if run.code:
            say("  " + tr("Error ({code}): {message}", code=run.code, message=run.message).replace("\n", "\n  "))


def headline(run: PastRun) -> str:
    """An invocation on one line."""
    seconds = f"{run.duration_ms / 1000:.1f} s"
    return f"{run.id[:SHOWN_ID]}  {run.started}  {run.what}  {run.outcome}  {seconds}"


def described(run: PastRun, *, log: bool) -> dict[str, object]:
    """An invocation as JSON."""
    fields = asdict(run)
    if not log:
        del fields["log"]
    return {
        **fields,
        "started_at": run.started_at.isoformat(),
        "ended_at": run.ended_at.isoformat() if run.ended_at else None,
    }


def _only(start: str, found: list[PastRun]) -> PastRun:
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFound(
            _("There is no invocation {start}; `llmasos invocations` lists them.", start=start),
        )
    raise NotFound(
        _("Several invocations start with {start}: give more of the id.", start=start),
    )


@contextmanager
def opened_history() -> Generator[History]:
    """The history of the server that LLMASOS_URL names, else of this home."""
    with named_server() as server:
        if server is not None:
            yield RemoteHistory(server)
            return
    with opened_database() as database:
        yield LocalHistory(database, WORKSPACE)
