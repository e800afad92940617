"""One invocation inside a runner: its deadline, its log, and the host calls that it waits for.

It belongs to the one thread that its store lives on. The thread that reads the socket hands it replies, or tells it
why it must end.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any, Final, Protocol

from llmasos_runner.protocol import Failure, FrameError, Limits
from llmasos_sdk.messages import Message, to_text
from llmasos_sdk.messages import message as _

# What a call leaves of a text that was printed, besides the text itself.
_DROPPED: Final = "[… {} bytes of log dropped …]\n"


class Ended(Exception):
    """The invocation is over, at its deadline or because it was cancelled: unwind the guest."""


class Sender(Protocol):
    """Sends one message to the host; safe from any thread."""

    def __call__(self, message: object) -> None:
        """Send it.

        Raises:
            FrameError: It is larger than a frame.
            ValueError: It is no JSON.
            OSError: The host is gone.
        """
        ...


class Log:
    """The last `limit_bytes` of what a guest printed, since the end shows what went wrong."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._kept = bytearray()
        self._dropped = 0

    def write(self, data: bytes) -> None:
        """Append, and drop what is oldest."""
        self._kept += data
        # Cut only at twice the limit, so that a flood of small writes is not quadratic.
        if len(self._kept) > 2 * self._limit:
            self._cut()

    def text(self) -> str:
        """Return what is kept, preceded by a line that gives the number of dropped bytes."""
        self._cut()
        text = self._kept.decode(errors="replace")
        return _DROPPED.format(self._dropped) + text if self._dropped else text

    def _cut(self) -> None:
        surplus = len(self._kept) - self._limit
        if surplus > 0:
            del self._kept[:surplus]
            self._dropped += surplus


class GuestInvocation:
    """One invocation."""

    def __init__(self, invocation_id: str, limits: Limits, send: Sender) -> None:
        self.id = invocation_id
        self.limits = limits
        self.log = Log(limits["log_bytes"])
        self.deadline = time.monotonic() + limits["wall_seconds"]
        self.exit_code: int | None = None
        # What its thread had computed before it began, in seconds.
        self.computed_before = 0.0
        # Whether its thread was interrupted, and must not be again.
        self.unwound = False
        self._send = send
        self._seq = 0
        self._reason: Failure | None = None
        self._answer: dict[str, Any] | None = None
        # Held while there is no news: a plain lock is the cheapest thing to wait for, and each invocation has its own.
        self._news = threading.Lock()
        self._news.acquire()

    @property
    def reason(self) -> Failure | None:
        """Why it had to end; None if it did not."""
        return self._reason

    def end(self, tag: str, said: Message, code: str | None = None) -> None:
        """End it, from any thread; the first reason stays. The code is the tag's own unless another is given."""
        if self._reason is None:
            # The code marks this as the runner's own error, not one that the app returned.
            self._reason = {"tag": tag, "message": to_text(said), "code": code or tag}
        self._wake()

    def answer(self, reply: dict[str, Any]) -> None:
        """Hand it the host's reply to its call."""
        self._answer = reply
        self._wake()

    def is_over(self) -> bool:
        """Whether the guest must stop now."""
        if self._reason is None and time.monotonic() >= self.deadline:
            seconds = f"{self.limits['wall_seconds']:.3g}"
            self.end("timeout", _("It took longer than {seconds} seconds.", seconds=seconds))
        return self._reason is not None

    def sleep(self, seconds: float) -> None:
        """Wait, but no longer than the invocation lasts.

        Raises:
            Ended: The invocation is over.
        """
        until = time.monotonic() + seconds
        while not self.is_over():
            left = min(until, self.deadline) - time.monotonic()
            if left <= 0 and time.monotonic() >= until:
                return
            self._news.acquire(timeout=max(left, 0))
        raise Ended

    def call(self, capability: str, function: str, arguments: list[Any]) -> dict[str, Any]:
        """Call the host and return its reply: {"value": …} or {"error": …}.

        Raises:
            Ended: The invocation is over, or the host is gone.
        """
        if self.is_over():
            raise Ended
        self._seq += 1
        self._answer = None
        message = {
            "t": "syscall", "id": self.id, "seq": self._seq,
            "capability": capability, "function": function, "arguments": arguments,
        }  # fmt: skip
        try:
            self._send(message)
        except (FrameError, ValueError) as error:
            return {"error": {"tag": "invalid", "message": str(error)}}
        except OSError as error:
            self.end("cancelled", _("The host is gone."))
            raise Ended from error
        while True:
            reply = self._answer
            if reply is not None and reply["seq"] == self._seq:
                return reply
            if self.is_over():
                raise Ended
            self._news.acquire(timeout=max(self.deadline - time.monotonic(), 0))

    def _wake(self) -> None:
        # It may be woken several times before it looks; once is enough.
        with suppress(RuntimeError):
            self._news.release()
