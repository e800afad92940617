"""Keys under which a caller asks for an invocation: asked again, the same request gets the same invocation.

A key is claimed before the invocation begins, with the id that it will have, so that no crash lets a second one begin.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

import msgspec

from llmasos.database.engine import Database, utc_now
from llmasos.database.leases import is_dead
from llmasos.database.transaction import Transaction
from llmasos.database.write_queue import WriteKind
from llmasos.errors import Conflict, Invalid
from llmasos.i18n import _
from llmasos.kernel.invocation import Json, Principal, new_id

KEPT: Final = timedelta(days=1)
# An invocation is admitted in milliseconds, unless its app must be prepared first.
BUSY_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 0.05
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")


class IdempotencyKeyReused(Conflict):
    """This Idempotency-Key came with another request before: send another key, or the same request."""

    code = "idempotency-key-reused"


class IdempotencyKeyBusy(Conflict):
    """A request with this Idempotency-Key is just being started: send it again in a second."""

    code = "idempotency-key-busy"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a key stands for."""

    invocation_id: str
    is_new: bool
    """Whether the caller is to begin it; otherwise it began before."""


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request under a key."""

    principal: Principal
    key: str
    request_hash: str

    @classmethod
    def of(cls, principal: Principal, key: str, app_id: str, action: str, value: Json) -> KeyedRequest:
        """A request to run an action.

        Raises:
            Invalid: The key is not 1 to 255 characters of ASCII without spaces.
        """
        if not _KEY.fullmatch(key):
            raise Invalid(_("An Idempotency-Key is 1 to 255 characters of ASCII, without spaces."))
        encoded = msgspec.json.encode([app_id, action, value], order="deterministic")
        return cls(principal, key, hashlib.sha256(encoded).hexdigest())

    @property
    def _whose(self) -> tuple[str, str, str]:
        return self.principal.workspace, self.principal.user, self.key

    def claim(self, transaction: Transaction, lease_id: str) -> Claim:
        """Claim the key for an invocation of this process, or find the one that has it.

        Raises:
            IdempotencyKeyReused: It came with another request.
            IdempotencyKeyBusy: Its invocation is being started.
        """
        now = utc_now()
        claim = Claim(new_id(), is_new=True)
        # Who holds it is read under the lock of its row, which an update of nothing takes.
        transaction.run(
            "INSERT INTO idempotency_key"
            " (workspace_id, user_id, key, request_hash, invocation_id, lease_id, claimed_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (workspace_id, user_id, key) DO UPDATE SET key = excluded.key",
            *(*self._whose, self.request_hash, claim.invocation_id, lease_id, transaction.instant(now)),
        )
        found = transaction.one(
            "SELECT k.request_hash, k.invocation_id, k.lease_id, i.id, k.claimed_at < ? FROM idempotency_key k"
            " LEFT JOIN invocation i ON i.id = k.invocation_id"
            " WHERE k.workspace_id = ? AND k.user_id = ? AND k.key = ?",
            *(transaction.instant(now - KEPT), *self._whose),
        )
        assert found is not None  # noqa: S101 - it was just written
        request_hash, invocation_id, holder, began, expired = found
        if invocation_id == claim.invocation_id:
            return claim
        if not expired:
            if request_hash != self.request_hash:
                raise IdempotencyKeyReused
            if began is not None:
                return Claim(invocation_id, is_new=False)
            if not _has_died(transaction, holder):
                raise IdempotencyKeyBusy
        # A day has passed, or its process died before the invocation began.
        transaction.run(
            "UPDATE idempotency_key SET request_hash = ?, invocation_id = ?, lease_id = ?, claimed_at = ?"
            " WHERE workspace_id = ? AND user_id = ? AND key = ?",
            *(self.request_hash, claim.invocation_id, lease_id, transaction.instant(now), *self._whose),
        )
        return claim

    def release(self, transaction: Transaction, claim: Claim) -> None:
        """Give the key back: what it was claimed for was refused, and never began."""
        transaction.run(
            "DELETE FROM idempotency_key WHERE workspace_id = ? AND user_id = ? AND key = ? AND invocation_id = ?"
            " AND NOT EXISTS (SELECT 1 FROM invocation i WHERE i.id = ?)",
            *(*self._whose, claim.invocation_id, claim.invocation_id),
        )


class IdempotencyKeys:
    """The keys that this process claims."""

    def __init__(self, database: Database, lease_id: str) -> None:
        self._database = database
        self._lease_id = lease_id

    async def claim(self, request: KeyedRequest) -> Claim:
        """Claim the key of a request, or find its invocation; wait a little for one that is being started.

        Raises:
            IdempotencyKeyReused: It came with another request.
            IdempotencyKeyBusy: Its invocation is still being started.
        """
        give_up = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return await self._database.write_queue.submit(partial(request.claim, lease_id=self._lease_id))
            except IdempotencyKeyBusy:
                if time.monotonic() > give_up:
                    raise
                await asyncio.sleep(RETRY_SECONDS)

    def release(self, request: KeyedRequest, claim: Claim) -> None:
        """Give back the key of a request that was refused."""
        self._database.write_queue.submit(partial(request.release, claim=claim), WriteKind.HOUSEKEEPING)


def _has_died(transaction: Transaction, lease_id: str) -> bool:
    lease = transaction.one("SELECT machine, pid, born, expires_at FROM host_lease WHERE id = ?", lease_id)
    if lease is None:
        return True
    machine, pid, born, expires_at = lease
    return is_dead(machine, pid, born, expires_at, transaction.now())


def expire(transaction: Transaction) -> None:
    """Forget keys after a day."""
    transaction.run("DELETE FROM idempotency_key WHERE claimed_at < ?", transaction.instant(utc_now() - KEPT))
