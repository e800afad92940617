"""Classifies a provider's failure: which error of the host it is, and whether a retry may help.

litellm's exceptions are known here by the names of their classes, so that this module needs no litellm, which takes
seconds to import.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmasos.errors import Invalid, LlmasosError, ModelUnavailable, TimedOut
from llmasos.gateway.models import ModelEntry
from llmasos.i18n import Message, _, template

# A provider's own words help, but may be a page of HTML.
MAX_WORDS = 300

# If a provider asks for a longer pause than this, the call fails: its caller is waiting.
MAX_PAUSE_SECONDS = 10.0


class ModelKeyRejected(ModelUnavailable):
    """The provider did not accept the key of this model."""

    code = "model-key-rejected"


class ModelRateLimited(ModelUnavailable):
    """The provider of this model accepts no more requests now; try again later."""

    code = "model-rate-limited"


class ContextTooLong(Invalid):
    """The text is longer than what the model can read."""

    code = "context-too-long"


class ContentRefused(Invalid):
    """The provider refuses this content."""

    code = "content-refused"


class ModelSaidNothing(ModelUnavailable):
    """The model gave no answer within the tokens that it was allowed; allow a larger max_tokens."""

    code = "model-said-nothing"


class StreamCut(ModelUnavailable):
    """The model's answer broke off before its end; call it again."""

    code = "model-stream-cut"


class ModelUnpaid(ModelUnavailable):
    """The provider of this model requires payment."""

    code = "model-unpaid"


@dataclass(frozen=True, slots=True)
class ProviderFailure:
    """A failed attempt, classified."""

    error: LlmasosError
    again: bool = False
    """Asking the same model once more may help."""
    pause_seconds: float | None = None
    """How long the provider asks to wait."""
    refusal: str = ""
    """The provider's words, if it refuses the request as it is."""


def classify(error: BaseException, entry: ModelEntry, key: str | None) -> ProviderFailure:
    """Classify `error`, raised while `entry` was called with `key`. The key never appears in the result."""
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, LlmasosError):
            # A provider inside the host raised it, and litellm wrapped it.
            return ProviderFailure(cause, again=isinstance(cause, ModelUnavailable))
    names = {cls.__name__ for cause in causes for cls in type(cause).__mro__}
    names |= {str(getattr(cause, "code", "")) for cause in causes}
    names |= {f"status {getattr(cause, 'status_code', '')}" for cause in causes}
    pause = _retry_after(causes)
    again = pause is None or pause <= MAX_PAUSE_SECONDS
    said = _words(error, key)
    if "before a finish_reason was received" in said:
        names.add("stream cut")
    if _UNPAID.search(" ".join(str(cause) for cause in causes)):
        names.add("unpaid")
    for known, cls, text, may_help in _KINDS:
        if names & known:
            fields = {
                "name": entry.name,
                "seconds": f"{entry.timeout_seconds:g}",
                "string": entry.litellm,
                "said": said,
                "where": _where(entry),
            }
            refusal = said if cls is Invalid else ""
            return ProviderFailure(cls(Message(text, fields)), again and may_help, pause, refusal)
    unknown = ModelUnavailable(
        _("The model {entry} did not answer: {said}; run `llmasos models test {entry}`.", entry=entry.name, said=said),
    )
    return ProviderFailure(unknown, again, pause)


# What providers write for 402: Anthropic uses status 400, others 403 and 429.
_UNPAID = re.compile(r"credit balance|insufficient (credits|balance|funds|quota)|payment required|billing", re.I)

# The classes of litellm and of what it wraps, and codes that providers send, the narrower first; our error for each;
# whether to retry.
_KINDS: tuple[tuple[frozenset[str], type[LlmasosError], str, bool], ...] = (
    (
        frozenset({"status 402", "unpaid", "insufficient_quota", "billing_not_active"}),
        ModelUnpaid,
        template("The provider of {name} requires payment. ({said})"),
        False,
    ),
    (
        frozenset({"stream cut"}),
        StreamCut,
        template("The answer of {name} broke off: its stream ended without a sign of its end."),
        True,
    ),
    (
        frozenset({"TimeoutError", "Timeout", "APITimeoutError"}),
        TimedOut,
        template("The model {name} did not answer within {seconds} s."),
        False,
    ),
    (
        frozenset({"AuthenticationError", "PermissionDeniedError"}),
        ModelKeyRejected,
        template("The provider of {name} rejected its key; set it anew and run `llmasos models test {name}`."),
        False,
    ),
    (
        frozenset({"ContextWindowExceededError"}),
        ContextTooLong,
        template("The text is longer than {name} can read; shorten it. ({said})"),
        False,
    ),
    (
        frozenset(
            {"ContentPolicyViolationError", "RejectedRequestError", "content_policy_violation", "content_filter"}
        ),
        ContentRefused,
        template("The provider of {name} refuses this content. ({said})"),
        False,
    ),
    (
        frozenset({"RateLimitError"}),
        ModelRateLimited,
        template("The provider of {name} accepts no more requests now; try again later. ({said})"),
        True,
    ),
    (
        frozenset({"NotFoundError"}),
        ModelUnavailable,
        template("The provider of {name} does not know {string!r}{where}; see `llmasos models list`. ({said})"),
        False,
    ),
    (
        frozenset({"BadRequestError", "UnprocessableEntityError", "InvalidRequestError"}),
        Invalid,
        template("The provider of {name} refuses the request: {said}"),
        False,
    ),
)


def _where(entry: ModelEntry) -> str:
    """A hint that the address may be wrong: an unknown route and an unknown model look the same."""
    address = (entry.api_base or "").rstrip("/")
    if not address or address.endswith("/v1"):
        return ""
    return _(", or has no such route: its address {address} does not end in /v1", address=address)


def _causes(error: BaseException) -> list[BaseException]:
    """The error and those behind it. litellm often wraps a narrow error in a broader one."""
    causes: list[BaseException] = []
    seen: BaseException | None = error
    while seen is not None and seen not in causes and len(causes) < 10:
        causes.append(seen)
        original = getattr(seen, "original_exception", None)
        seen = original if isinstance(original, BaseException) else seen.__cause__ or seen.__context__
    return causes


def elsewhere_may_help(error: LlmasosError) -> bool:
    """Whether another model might succeed: not if the request itself is at fault, unless it is only too long."""
    return isinstance(error, ContextTooLong) or not isinstance(error, Invalid)


def _words(error: BaseException, key: str | None) -> str:
    said = str(getattr(error, "message", "") or error)
    # litellm adds tracebacks and requests to file a bug to errors that it does not know.
    for noise in ("Traceback (most recent call last)", "This looks like a bug in LiteLLM", "Original exception:"):
        said = said.split(noise, maxsplit=1)[0]
    said = " ".join(said.split())
    if key:
        said = said.replace(key, "•••")
    for prefix in ("litellm.", f"{type(error).__name__}: "):
        said = said.removeprefix(prefix)
    return said if len(said) <= MAX_WORDS else said[:MAX_WORDS] + "…"


def _retry_after(causes: list[BaseException]) -> float | None:
    for cause in causes:
        headers = getattr(getattr(cause, "response", None), "headers", None)
        try:
            if headers and "retry-after" in headers:
                return float(headers["retry-after"])
        except (TypeError, ValueError):
            continue  # a date; rare, and our own pauses suffice
    return None
