"""Every error that the host returns, as one class tree.

Which one to raise: the class says who must act, the message says how.

- `Denied`: a person must consent or an author must declare. `QuotaExceeded`: wait, or an operator raises a limit.
- `Invalid`: the caller must send something else. `NotFound`, `Conflict`: of the thing named.
- `Unavailable`: try again, or an operator must mend something. `TimedOut`, `Cancelled`: the run ended early.

An error class's docstring is its default message, written to the person who reads it; an error with more to say takes
a message of its own: `Invalid(_("There is no {name}.", name=name))`. A plain string holds words that are not ours, and
is shown unchanged. `tag` is the case of the component contract, `code` is what problem documents carry, stable for
programs, `exit_code` what the command returns.
"""

from __future__ import annotations

from typing import ClassVar

from llmasos.i18n import Message, verbatim


class LlmasosError(Exception):
    """Something failed that has no better name; run `llmasos doctor`."""

    tag: ClassVar[str] = "unavailable"
    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str | None = None) -> None:
        self.message = verbatim(message) if message else self.default()
        super().__init__(self.message)

    @classmethod
    def default(cls) -> Message:
        """The message of an error that is raised without one."""
        text = " ".join((cls.__doc__ or cls.code).split())
        return Message(text.replace("{", "{{").replace("}", "}}"))

    def __str__(self) -> str:
        """The message in English."""
        return str(self.message)


class Denied(LlmasosError):
    """The installation does not allow this."""

    tag = "denied"
    code = "denied"
    status = 403
    exit_code = 3


class Unauthenticated(Denied):
    """A valid token is needed: make one with `llmasos tokens create`."""

    code = "unauthenticated"
    status = 401


class PermissionNotDeclared(Denied):
    """The app used a capability that its manifest does not declare."""

    code = "permission-not-declared"


class PermissionNotGranted(Denied):
    """The app's manifest declares this capability, but the installation does not grant it."""

    code = "permission-not-granted"


class ConsentNeeded(Denied):
    """The app asks for permissions that nobody has consented to yet."""

    code = "consent-needed"


class QuotaExceeded(LlmasosError):
    """A quota is used up; see `llmasos usage`, and raise it with `llmasos quota set`."""

    tag = "quota"
    code = "quota-exceeded"
    status = 429
    exit_code = 4


class Invalid(LlmasosError):
    """The input is not valid."""

    tag = "invalid"
    code = "invalid"
    status = 422


class ManifestRejected(Invalid):
    """The manifest llmapp.toml is not valid."""

    code = "manifest-rejected"


class BundleRejected(Invalid):
    """The bundle is not safe or not complete."""

    code = "bundle-rejected"


class ComponentRejected(Invalid):
    """The component does not fit its manifest, or is no component."""

    code = "component-rejected"


class AppFailed(Invalid):
    """The app ended with an error of its own."""

    code = "app-failed"


class ResourceLimit(Invalid):
    """The app used more memory, compute or output than it may."""

    code = "resource-limit"


class NotFound(LlmasosError):
    """There is no such thing, or you may not see it."""

    tag = "not-found"
    code = "not-found"
    status = 404
    exit_code = 5


class Conflict(LlmasosError):
    """Somebody else changed it first."""

    tag = "conflict"
    code = "conflict"
    status = 409


class Unavailable(LlmasosError):
    """What this needs is not available now."""

    code = "unavailable"
    status = 503


class DiskFull(Unavailable):
    """The disk is full: nothing was changed. Free some space in the home (LLMASOS_HOME) and run it again."""

    code = "disk-full"


class CannotConfine(Unavailable):
    """This system cannot confine an app as it must be, so it is not started; see `llmasos doctor`."""

    code = "cannot-confine"


class RunnerDied(Unavailable):
    """The process that ran the app died; the invocation was settled and nothing else was touched."""

    code = "runner-died"


class ModelUnavailable(Unavailable):
    """No model could be reached."""

    code = "model-unavailable"


class ModelNotFit(ModelUnavailable):
    """No model here is fit for this; connect one with `llmasos models add`."""

    code = "model-not-fit"


class TimedOut(LlmasosError):
    """It took longer than it may."""

    tag = "timeout"
    code = "timeout"
    status = 504


class Cancelled(LlmasosError):
    """The caller cancelled it."""

    tag = "cancelled"
    code = "cancelled"
    status = 499


BY_TAG: dict[str, type[LlmasosError]] = {
    cls.tag: cls for cls in (Denied, QuotaExceeded, Invalid, Unavailable, TimedOut, Cancelled, NotFound, Conflict)
}


def error_with_code(code: str, message: str) -> LlmasosError | None:
    """An error of the class that has a code, of those that are imported; None if none has it."""
    waiting: list[type[LlmasosError]] = [LlmasosError]
    for cls in waiting:
        if cls.code == code:
            error = cls.__new__(cls)
            LlmasosError.__init__(error, message)  # a class's own may want more
            return error
        waiting += cls.__subclasses__()
    return None
