"""What can go wrong between an app and its host.

One class a case of the contract's `error` variant. An app raises them, or lets them pass: the host
answers its caller with the same case and message.
"""

from __future__ import annotations

from typing import ClassVar, Final

from llmasos_sdk.messages import Message, well_formed


class AppError(Exception):
    """The app failed."""

    tag: ClassVar[str] = "unavailable"

    def __init__(self, message: str | None = None) -> None:
        said = message or Message(type(self).__doc__ or self.tag)
        self.message: Final = said if isinstance(said, Message) else well_formed(said)
        super().__init__(self.message)


class Denied(AppError):
    """The installation does not allow this call."""

    tag = "denied"


class QuotaExceeded(AppError):
    """A quota is used up."""

    tag = "quota"


class Invalid(AppError):
    """The input is not valid."""

    tag = "invalid"


class SchemaMismatch(Invalid):
    """The value does not fit the schema of its action."""


class AppFailed(Invalid):
    """The app ended with an error of its own."""


class CapabilityNotDeclared(Denied, AttributeError):
    """The app used a capability that its manifest does not declare."""


class PermissionDeclined(Denied, AttributeError):
    """The app used a capability that its user declined."""


class Unavailable(AppError):
    """What the call needs is not available now."""

    tag = "unavailable"


class AnswerUnusable(Unavailable):
    """The model's answer does not fit the requested schema."""


class TimedOut(AppError):
    """The call took longer than it may."""

    tag = "timeout"


class Cancelled(AppError):
    """The caller cancelled the invocation."""

    tag = "cancelled"


class NotFound(AppError):
    """There is no such thing, or this app may not see it."""

    tag = "not-found"


class Conflict(AppError):
    """Somebody else changed it first."""

    tag = "conflict"


BY_TAG: Final[dict[str, type[AppError]]] = {
    cls.tag: cls for cls in (Denied, QuotaExceeded, Invalid, Unavailable, TimedOut, Cancelled, NotFound, Conflict)
}


def from_tag(tag: str, message: str) -> AppError:
    """The error of a case of the contract's variant; an unknown case is `Unavailable`."""
    return BY_TAG.get(tag, Unavailable)(message)
