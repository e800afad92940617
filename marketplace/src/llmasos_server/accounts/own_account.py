"""What people change of their own account, take away as a file, and delete."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from sqlmodel import col, delete, select

from llmasos.capabilities import stored_data
from llmasos.capabilities.tables import StoredValue
from llmasos.database.engine import Database, WriteSession
from llmasos.errors import Conflict, Denied, Invalid
from llmasos.i18n import _
from llmasos.invocations import content, records
from llmasos.invocations.tables import InvocationRow
from llmasos.kernel import audit
from llmasos.kernel.audit import Line
from llmasos.kernel.invocation import Principal
from llmasos.quotas import service as quotas
from llmasos.quotas.meters import Scope
from llmasos.secrets import KeyChanged, Sealer
from llmasos.secrets.tables import SecretRow
from llmasos_server.accounts import passkeys, people, repository, second_factor, sessions
from llmasos_server.accounts.tables import (
    ApiToken,
    ExternalIdentity,
    OneTimeCode,
    User,
    WebSession,
)

# Whom the command line acts as: without that user, no command would work.
MACHINES_OWN: Final = Principal().user
_AT_A_TIME: Final = 100


def own(session: WriteSession, by: Principal) -> User:
    """The caller's row.

    Raises:
        Denied: The user was disabled or deleted meanwhile.
    """
    user = people.user_named(session, by.user)
    if user is None:
        raise Denied
    return user


def rename(session: WriteSession, by: Principal, name: str, email: str) -> None:
    """Take another name or address. An empty address leaves the user without one.

    Raises:
        Invalid: The name or the address will not do, or the user signs in with the address.
        Conflict: It is another user's.
    """
    user = own(session, by)
    address = people.normal_email(email) if email.strip() else None
    if address is None and user.password_hash is not None:
        raise Invalid(_("You sign in with your address and a password: an address is needed."))
    holder = None if address is None else people.by_email(session, address)
    if holder is not None and holder.id != user.id:
        raise Conflict(_("This address cannot be used here: take another."))
    user.name = people.normal_name(name)
    if user.email != address:
        user.email = address
        note(session, by, "account.email")


def set_password(session: WriteSession, by: Principal, hashed: str, session_id: str) -> None:
    """Keep a new password, and end every other session of the user.

    Args:
        session: The caller commits.
        by: Whose it is.
        hashed: As `passwords.hash_of` returns it.
        session_id: The session that goes on.

    Raises:
        Invalid: The user has no address to sign in with.
    """
    user = own(session, by)
    if user.email is None:
        raise Invalid(_("Give your e-mail address first: you sign in with both."))
    user.password_hash = hashed
    sessions.end_others(session, user.id, session_id)
    note(session, by, "account.password")


def note(session: WriteSession, by: Principal, event: str) -> None:
    """Write down that the user changed something to sign in with."""
    audit.record(session, Line(by.workspace, by.user, event))


def export(database: Database, sealer: Sealer, user_id: str, encode: Callable[[Any], str]) -> Iterator[str]:
    """Everything that is kept of a user, as parts of one JSON text. Secrets are named, never shown.

    Args:
        database: Where it is; every part is read by itself.
        sealer: Decrypts inputs and outputs.
        user_id: The user.
        encode: Makes JSON of a value.
    """
    with database.read() as session:
        known = list(_account(session, user_id).items())
    yield "{"
    for name, value in known:
        yield f"{encode(name)}:{encode(value)},"
    yield '"stored":['
    yield from _joined(encode(each) for each in _stored(database, user_id))
    yield '],"invocations":['
    yield from _joined(encode(each) for each in _invocations(database, sealer, user_id))
    yield "]}"


def _joined(texts: Iterator[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        yield f",{text}" if number else text


def _account(session: Any, user_id: str) -> dict[str, Any]:
    user: User = session.get(User, user_id)
    workspaces = people.workspaces_of(session, user_id)
    return {
        "format": 1,
        "account": user.model_dump(mode="json", exclude={"password_hash", "disabled_at"}),
        "workspaces": [{"id": each, "role": people.role_of(session, each, user_id)} for each in workspaces],
        "sessions": [row.model_dump(mode="json", exclude={"hash"}) for row in sessions.listed(session, user_id)],
        "passkeys": [
            row.model_dump(mode="json", include={"id", "name", "created_at", "last_used_at"})
            for row in passkeys.of_user(session, user_id)
        ],
        "second_factor": second_factor.is_on(session, user_id),
        "tokens": [row.model_dump(mode="json", exclude={"hash"}) for row in repository.of_user(session, user_id)],
        "secrets": [
            {"workspace": row.workspace_id, "app": row.app_id or None, "name": row.name}
            for row in session.exec(select(SecretRow).where(SecretRow.user_id == user_id))
        ],
    }


def _stored(database: Database, user_id: str) -> Iterator[dict[str, Any]]:
    order = (col(StoredValue.workspace_id), col(StoredValue.app_id), col(StoredValue.key))
    query = select(StoredValue).where(StoredValue.user_id == user_id).order_by(*order)
    with database.read() as session:
        for row in session.exec(query.execution_options(yield_per=_AT_A_TIME)):
            yield row.model_dump(mode="json", exclude={"user_id"})


def _invocations(database: Database, sealer: Sealer, user_id: str) -> Iterator[dict[str, Any]]:
    with database.read() as session:
        workspaces = list(session.exec(select(InvocationRow.workspace_id).where(_of(user_id)).distinct()))
    for workspace in workspaces:
        before: InvocationRow | None = None
        while True:
            with database.read() as session:
                rows = records.listing(session, workspace, user_id, _AT_A_TIME, before=before)
                yield from [_invocation(session, sealer, row) for row in rows]
                session.expunge_all()
            if len(rows) < _AT_A_TIME:
                break
            before = rows[-1]


def _of(user_id: str) -> Any:
    return InvocationRow.user_id == user_id


def _invocation(session: Any, sealer: Sealer, row: InvocationRow) -> dict[str, Any]:
    try:
        kept = content.read(session, sealer, row.id)
    except KeyChanged:
        kept = None
    return {
        **row.model_dump(mode="json", exclude={"user_id", "lease_id", "cancel_requested", "log"}),
        "input": kept.input if kept else None,
        "output": kept.output if kept else None,
        "shown": kept.shown if kept else "",
    }


def delete_account(session: WriteSession, by: Principal) -> None:
    """Delete a user, with all that is kept of it. What was used, and the audit log, stay under an id without a name.

    Raises:
        Denied: It is the user of the machine's own command line.
        Conflict: Something of the user's still runs.
        Invalid: A workspace would have no owner.
    """
    user = own(session, by)
    if user.id == MACHINES_OWN:
        raise Denied(_("This is the account of the machine's own command line, which needs it."))
    running = select(InvocationRow.id).where(InvocationRow.user_id == user.id, InvocationRow.status == "running")
    if session.exec(running.limit(1)).first() is not None:
        raise Conflict(_("Something of yours still runs: stop it first, or wait for its end."))
    for workspace in people.workspaces_of(session, user.id):
        people.remove_member(session, Principal(workspace, user.id), user.id)
        _remove_quotas(session, Principal(workspace, user.id))
    session.flush()
    content.delete_of_user(session, user.id)
    stored_data.forget_user(session, user.id)
    for passkey in passkeys.of_user(session, user.id):
        session.delete(passkey)
    second_factor.remove(session, user.id)
    session.exec(delete(SecretRow).where(col(SecretRow.user_id) == user.id))
    for table in (ApiToken, WebSession, OneTimeCode, ExternalIdentity):
        session.exec(delete(table).where(col(table.user_id) == user.id))
    session.flush()
    session.delete(user)


def _remove_quotas(session: WriteSession, of: Principal) -> None:
    def record(event: str, detail: Any) -> None:
        audit.record(session, Line(of.workspace, of.user, event, detail=detail))

    for status in quotas.list_quotas(session, of.workspace):
        if status.name.scope is Scope.USER and status.name.scope_id == of.user:
            quotas.remove_quota(session, record, status.name)
