"""A capability that counts tokens, and queries of its calls in the database."""

import asyncio
from dataclasses import dataclass
from typing import Any

from sqlmodel import select

from llmasos.bundles.manifest import LocalisedText, ModelPermission
from llmasos.database.engine import Database, utc_now
from llmasos.errors import Denied, Invalid
from llmasos.invocations.tables import InvocationRow
from llmasos.kernel import audit
from llmasos.kernel.capability import ContractFunction, Operation, OperationResult, PreparedCall
from llmasos.kernel.invocation import InstalledApp, Invocation, Principal
from llmasos.kernel.tables import AuditEntry
from llmasos.quotas.meters import Demand, Meter, Shrink, Used
from llmasos.quotas.tables import LedgerWindow, Quota, ReservationRow

WHY = LocalisedText(en="for the test")
APP = InstalledApp(
    "acme/one",
    "1.0",
    "i1",
    {"model": ModelPermission(capability="model", tiers=("fast",), reason=WHY)},
    {"model", "http"},
)


class Words:
    """A stream of words, each a token."""

    def __init__(self, words: list[str], fail_after: int | None = None) -> None:
        self.words = words
        self.given = 0
        self.closed = False
        self.fail_after = fail_after

    async def read(self) -> str | None:
        if self.fail_after == self.given:
            raise RuntimeError("secret insides")
        if self.given == len(self.words):
            return None
        self.given += 1
        return self.words[self.given - 1]

    async def close(self) -> None:
        self.closed = True

    @property
    def used(self) -> Used:
        return Used(prompt_tokens=1, completion_tokens=self.given, model="m")


@dataclass(frozen=True)
class Count(Operation[Any]):
    """Uses the given number of tokens, and ends in the given way."""

    way: str
    tokens: int
    capability = "model"

    @property
    def function(self) -> str:
        return self.way


class TokenCapability:
    """A model that counts."""

    name = "model"
    audited = True

    def __init__(self) -> None:
        self.hanging = asyncio.Event()
        self.streams: list[Words] = []
        self.fail_after: int | None = None
        self.contract = {
            way: ContractFunction(lambda arguments, way=way: self.decoded(way, arguments))
            for way in ("generate", "hang", "crash", "deny", "open")
        }

    @staticmethod
    def decoded(way: str, arguments: list) -> Count:
        match arguments:
            case [int() as tokens]:
                return Count(way, tokens)
        raise Invalid("one number")

    def prepare(self, invocation: Invocation, operation: Count) -> PreparedCall:
        async def execute(granted: Demand) -> OperationResult:
            assert granted.shrink
            match operation.way:
                case "generate":
                    tokens = granted.shrink.tokens
                    return OperationResult(tokens, Used(10, tokens, cost_micro_usd=7, model="m"))
                case "hang":
                    self.hanging.set()
                    await asyncio.sleep(3600)
                case "crash":
                    raise RuntimeError("secret insides")
                case "deny":
                    raise Denied("not while it runs either")
                case "open":
                    self.streams.append(Words(["a", "b", "c"], self.fail_after))
                    return OperationResult(stream=self.streams[-1])
            raise AssertionError

        demand = Demand({Meter.TOKENS: 10 + operation.tokens}, shrink=Shrink(operation.tokens, 5), model="m")
        return PreparedCall(execute, demand, used=lambda _granted: Used(prompt_tokens=10, model="m"))


ME = Principal("w", "u")


def limit(database: Database, tokens: int, meter: str = "tokens", window: str = "day") -> None:
    with database.write() as session:
        session.add(
            Quota(
                workspace_id="w",
                scope="app",
                scope_id="acme/one",
                meter=meter,
                window=window,
                limit=tokens,
                created_at=utc_now(),
            )
        )


def window(database: Database) -> tuple[int, int, int]:
    with database.read() as session:
        row = session.exec(select(LedgerWindow)).one()
        assert not session.exec(select(ReservationRow)).all()
        return row.used, row.reserved, row.overrun


def row_of(database: Database, id_: str) -> InvocationRow:
    with database.read() as session:
        row = session.get(InvocationRow, id_)
        assert row
        return row


def audit_lines(database: Database) -> list[tuple[str, str]]:
    with database.read() as session:
        assert audit.verify(session).intact
        return [(line.event, line.outcome) for line in session.exec(select(AuditEntry).order_by(AuditEntry.seq))]
