"""Set, list, remove and use secrets.

Encrypted by Fernet (AES-128-CBC with HMAC-SHA-256, from `cryptography`) under the key of the home; see `sealing`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlmodel import Session, col, select

from llmasos.database.engine import ReadSession, WriteSession
from llmasos.errors import Invalid, NotFound, Unavailable
from llmasos.i18n import _
from llmasos.kernel import audit
from llmasos.kernel.audit import Line
from llmasos.printable import hidden_character
from llmasos.secrets.sealing import KEY_FILE, home_key
from llmasos.secrets.tables import SecretRow

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

MAX_SECRET_BYTES: Final = 8192
# Straight quotes, and the typographic ones that word processors and chats substitute.
_QUOTES: Final = "\"'`“”„‘’‚«»「」"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class SecretOwner:
    """The owner of a secret: a user, and what it is for. No app can name another's secret, nor the host's own."""

    workspace: str
    user: str
    app_id: str = ""
    """The app whose requests carry it; empty: the host's own, such as the key of a model."""

    @property
    def key(self) -> tuple[str, str, str]:
        """The owner's part of a row's key."""
        return self.workspace, self.user, self.app_id


class Secrets:
    """The secrets of one home. The key is read, or created, when a secret is first needed."""

    def __init__(self, home: Path) -> None:
        self._path = home / KEY_FILE
        self._fernet: Fernet | None = None

    def set(self, session: WriteSession, owner: SecretOwner, name: str, value: str) -> None:
        """Store a secret, replacing any of that name.

        Raises:
            Invalid: The name is not lower-case letters, digits and underscores, or the value is empty or too long.
        """
        if not _NAME.fullmatch(name):
            raise Invalid(
                _(
                    "{name!r} is not a name for a secret: use lower-case letters, digits and underscores",
                    name=name[:64],
                ),
            )
        value = value.strip(" \t")
        if odd := hidden_character(value, lines=True):
            raise Invalid(_("the secret contains {odd}, which cannot be seen: paste it again", odd=odd))
        if not value or len(value.encode()) > MAX_SECRET_BYTES or not value.isprintable():
            raise Invalid(
                _("a secret is one line of 1 to {max_secret_bytes} bytes", max_secret_bytes=MAX_SECRET_BYTES),
            )
        if value[0] in _QUOTES and value[-1] in _QUOTES and len(value) > 1:
            raise Invalid(
                _(
                    "the secret stands in quotes ({quote}), which would be part of it: paste it without them",
                    quote=value[0],
                )
            )
        row = session.get(SecretRow, (*owner.key, name)) or SecretRow(
            workspace_id=owner.workspace,
            user_id=owner.user,
            app_id=owner.app_id,
            name=name,
            ciphertext="",
            updated_at=datetime.now(UTC),
        )
        row.ciphertext = self._cipher().encrypt(value.encode()).decode()
        row.updated_at = datetime.now(UTC)
        session.add(row)
        _audit(session, owner, "secret.set", name)

    def names(self, session: ReadSession | WriteSession, owner: SecretOwner) -> list[str]:
        """The sorted names of an owner's secrets."""
        rows = session.exec(
            select(SecretRow.name)
            .where(SecretRow.workspace_id == owner.workspace, SecretRow.user_id == owner.user)
            .where(SecretRow.app_id == owner.app_id)
            .order_by(col(SecretRow.name))
        )
        return list(rows)

    def listed(self, session: ReadSession | WriteSession, workspace: str, user: str) -> list[tuple[str, str]]:
        """(app, name) of every secret of a user; the app is empty for the host's own."""
        rows = session.exec(
            select(SecretRow.app_id, SecretRow.name)
            .where(SecretRow.workspace_id == workspace, SecretRow.user_id == user)
            .order_by(col(SecretRow.app_id), col(SecretRow.name))
        )
        return list(rows)

    def of_workspace(self, session: ReadSession, workspace: str) -> list[tuple[str, str, str]]:
        """(user, app, name) of every secret of a workspace; the app is empty for the host's own."""
        rows = session.exec(
            select(SecretRow.user_id, SecretRow.app_id, SecretRow.name)
            .where(SecretRow.workspace_id == workspace)
            .order_by(col(SecretRow.app_id), col(SecretRow.name), col(SecretRow.user_id))
        )
        return list(rows)

    def remove(self, session: WriteSession, owner: SecretOwner, name: str) -> None:
        """Delete a secret.

        Raises:
            NotFound: No secret of that name is set.
        """
        row = session.get(SecretRow, (*owner.key, name))
        if row is None:
            raise NotFound(
                _("no secret is called {name!r}; `llmasos secrets list` shows those that are set", name=name[:64]),
            )
        session.delete(row)
        _audit(session, owner, "secret.remove", name)

    def value(self, session: ReadSession | WriteSession, owner: SecretOwner, name: str) -> str | None:
        """Decrypt a secret for the host's own use; None if it is not set.

        Raises:
            Unavailable: It was encrypted under another key.
        """
        row = session.get(SecretRow, (*owner.key, name))
        if row is None:
            return None
        secret = self._decrypted(row.ciphertext)
        if secret is None:
            raise Unavailable(
                _(
                    "the secret {name} was encrypted under another key than {path} in the home; set it again",
                    name=name,
                    path=self._path.name,
                ),
            )
        return secret

    def encrypt(self, text: str) -> str:
        """A text that is kept elsewhere than among the secrets, under the same key."""
        return self._cipher().encrypt(text.encode()).decode()

    def decrypt(self, ciphertext: str) -> str:
        """What `encrypt` was given.

        Raises:
            Unavailable: It was encrypted under another key.
        """
        text = self._decrypted(ciphertext)
        if text is None:
            raise Unavailable(
                _(
                    "something was encrypted under another key than {path} in the home; restore that file from a "
                    "backup",
                    path=self._path.name,
                )
            )
        return text

    def count_unreadable(self, session: Session) -> int:
        """How many secrets were encrypted under another key."""
        return sum(self._decrypted(row.ciphertext) is None for row in session.exec(select(SecretRow)))

    def _decrypted(self, ciphertext: str) -> str | None:
        """A text; None if it was encrypted under another key."""
        from cryptography.fernet import InvalidToken  # noqa: PLC0415

        try:
            return self._cipher().decrypt(ciphertext.encode()).decode()
        except (InvalidToken, ValueError):  # a key that is no key at all
            return None

    def _cipher(self) -> Fernet:
        from cryptography.fernet import Fernet  # noqa: PLC0415 - a command that reads no secret spares it

        if self._fernet is None:
            self._fernet = Fernet(home_key(self._path))
        return self._fernet


def _audit(session: WriteSession, owner: SecretOwner, event: str, name: str) -> None:
    audit.record(session, Line(owner.workspace, owner.user, event, app=owner.app_id or None, detail={"name": name}))
