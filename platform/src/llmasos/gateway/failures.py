"""Classifies a provider's failure: which error of the host it is, and whether a retry may help.

litellm's exceptions are known here by the names of their classes, so that this module needs no litellm, which takes
seconds to import.
"""

from __future__ import annotations

import math
import os
import re
import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final, cast

from llmasos.errors import Invalid, LlmasosError, ModelUnavailable, TimedOut
from llmasos.gateway.models import ModelEntry
from llmasos.i18n import Message, _, template
from llmasos.printable import one_line

# A provider's own words help, but may be a page of HTML.
MAX_WORDS = 300

# More of a reply than this is not looked at.
MAX_READ = 20_000

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


class BadAnswer(ModelUnavailable):
    """The model's provider sent a reply that is not an answer; its address or its server may be wrong."""

    code = "model-answer-invalid"


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
            again = isinstance(cause, ModelUnavailable) and not isinstance(cause, BadAnswer)
            return ProviderFailure(cause, again)
    names = {name for cause in causes for name in _names(cause)}
    pause = _retry_after(causes)
    again = pause is None or pause <= MAX_PAUSE_SECONDS
    said = _words(error, key)
    if "before a finish_reason was received" in said:
        names.add("stream cut")
    words = " ".join(f"{cause} {getattr(cause, 'body', None) or ''}"[:MAX_READ] for cause in causes)
    names |= {name for name, pattern in _BY_WORDS.items() if pattern.search(words)}
    for known, cls, text, may_help in _KINDS:
        if names & known:
            fields = {
                "name": entry.name,
                "seconds": f"{entry.timeout_seconds:g}",
                "string": entry.litellm,
                "said": said,
                "where": _where(entry),
            }
            refusal = words if cls is Invalid or "lacking" in known else ""
            return ProviderFailure(cls(Message(text, fields)), again and may_help, pause, refusal)
    unreachable = next((cause for cause in reversed(causes) if isinstance(cause, OSError)), None)
    if unreachable is not None:
        return ProviderFailure(_unreachable(entry, unreachable), again, pause)
    unknown = ModelUnavailable(
        _("The model {entry} did not answer: {said}; run `llmasos models test {entry}`.", entry=entry.name, said=said),
    )
    return ProviderFailure(unknown, again and not names & _FOR_GOOD, pause, words)


# What providers mean by their words, whatever their status says: Anthropic writes 400 for an account that is to be
# paid, others 403 and 429; Gemini writes 400 for a wrong key.
_BY_WORDS: Final = {
    "unpaid": re.compile(
        r"credit balance|insufficient (\w+ )?(credits?|balance|funds|quota)|(out of|no|not enough) credits|"
        r"payment required|billing|\u4f59\u989d\u4e0d\u8db3|\u6b20\u8d39",
        re.IGNORECASE,
    ),
    "key": re.compile(
        r"api[ _-]?key (is )?(not valid|invalid|incorrect|expired)|"
        r"(invalid|incorrect|missing|expired) (x-)?api[ _-]?key",
        re.IGNORECASE,
    ),
    "long": re.compile(
        r"context (window|length|size)|prompt is too long|too many (input )?tokens|input (is )?too long|"
        r"`inputs` tokens|maximum (input|prompt) length",
        re.IGNORECASE,
    ),
    "content": re.compile(
        r"content[ _-](filter|policy|management|moderation)|data_?inspection_?failed|inappropriate content|"
        r"flagged by|safety system",
        re.IGNORECASE,
    ),
    "error in place of an answer": re.compile(r"Error in response object"),
    "lacking": re.compile(
        r"no endpoints found that support|"
        r"(tools?|tool_choice|tool choice|function calling|functions?|response_format|json_schema|json mode|"
        r"structured outputs?|system (role|messages?|prompts?)|images?|image_url|vision|audio|input_audio)\b"
        r".{0,60}(not support|n[o']t supported|unsupported|not available|unavailable|requires|not enabled)|"
        r"(not support|unsupported|not implemented)\w*\b.{0,60}"
        r"\b(tools?|tool_choice|function calling|functions|response_format|json_schema|structured outputs?|"
        r"system (role|messages?|prompts?)|images?|image_url|vision|audio|input_audio)\b",
        re.IGNORECASE,
    ),
}

# A retry of the same request fails in the same way.
_FOR_GOOD: Final = frozenset({"status 411", "status 414", "status 415", "status 451"})

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
        frozenset({"replied 408", "replied 504", "replied 522", "replied 524"}),
        TimedOut,
        template("The provider of {name} gave up waiting for its model; try again later. ({said})"),
        True,
    ),
    (
        frozenset({"TimeoutError", "Timeout", "APITimeoutError"}),
        TimedOut,
        template("The model {name} did not answer within {seconds} s."),
        False,
    ),
    (
        frozenset({"AuthenticationError", "authentication_error", "invalid_api_key", "status 401", "key"}),
        ModelKeyRejected,
        template("The provider of {name} rejected its key; set it anew and run `llmasos models test {name}`."),
        False,
    ),
    (
        frozenset({"PermissionDeniedError"}),
        ModelKeyRejected,
        template("The provider of {name} does not let its key call it; see the account at the provider. ({said})"),
        False,
    ),
    (
        frozenset({"status 413"}),
        ContextTooLong,
        template("The request is larger than the provider of {name} takes; shorten it. ({said})"),
        False,
    ),
    (
        frozenset({"ContextWindowExceededError", "long"}),
        ContextTooLong,
        template("The text is longer than {name} can read; shorten it. ({said})"),
        False,
    ),
    (
        frozenset(
            {
                "ContentPolicyViolationError",
                "RejectedRequestError",
                "content_policy_violation",
                "content_filter",
                "content",
            }
        ),
        ContentRefused,
        template("The provider of {name} refuses this content. ({said})"),
        False,
    ),
    (
        frozenset({"RateLimitError", "rate_limit_error", "rate_limit_exceeded", "status 429"}),
        ModelRateLimited,
        template("The provider of {name} accepts no more requests now; try again later. ({said})"),
        True,
    ),
    (
        frozenset({"lacking"}),
        ModelUnavailable,
        template("The model {name} lacks what the request needs; choose another model. ({said})"),
        False,
    ),
    (
        frozenset({"NotFoundError", "model_not_found", "status 404", "status 405", "status 410"}),
        ModelUnavailable,
        template("The provider of {name} does not know {string!r}{where}; see `llmasos models list`. ({said})"),
        False,
    ),
    (
        frozenset({"error in place of an answer"}),
        ModelUnavailable,
        template(
            "The provider of {name} replied with an error in place of an answer; run `llmasos models test {name}`."
        ),
        True,
    ),
    (
        frozenset({"BadRequestError", "UnprocessableEntityError", "InvalidRequestError"}),
        Invalid,
        template("The provider of {name} refuses the request: {said}"),
        False,
    ),
)


def _names(cause: BaseException) -> set[str]:
    """By what a cause is known: its classes, its status, and the code and type in what the provider replied."""
    names = {cls.__name__ for cls in type(cause).__mro__}
    names |= {str(getattr(cause, "code", "")), f"status {getattr(cause, 'status_code', '')}"}
    if "HTTPStatusError" in names:  # litellm gives its own timeouts the status 408 too; this one was received
        names.add(f"replied {cause.response.status_code}")  # type: ignore[attr-defined]
    body = getattr(cause, "body", None)
    if isinstance(body, dict):
        fields = cast("dict[str, object]", body)
        names |= {str(fields.get("code")), str(fields.get("type")), f"status {fields.get('code')}"}
    return names


def _unreachable(entry: ModelEntry, cause: OSError) -> ModelUnavailable:
    """The error of a connection that failed or broke off, by its cause in the operating system."""
    reason: object = cause.strerror or cause
    if isinstance(cause, ConnectionError) and cause.errno:
        reason = os.strerror(cause.errno)
    if isinstance(cause, ssl.SSLCertVerificationError):
        reason = _("its certificate is not trusted: {reason}", reason=cause.verify_message)
    elif isinstance(cause, ssl.SSLError) and cause.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        reason = _("it does not speak TLS, so its address may have to begin with http://")
    return ModelUnavailable(
        _(
            "The server of {entry} cannot be reached at {address}: {reason}. Check its address and whether it runs, "
            "then run `llmasos models test {entry}`.",
            entry=entry.name,
            address=entry.api_base or _("its provider's address"),
            reason=reason,
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


# litellm's names of classes and providers before a provider's words, and its advice after them.
_BEFORE: Final = re.compile(r"^((litellm\.)?\w+( Error)?: |\w+Exception - |Error code: \d+ - )+")
_AFTER: Final = re.compile(
    r"Traceback \(most recent call last\)|This looks like a bug in LiteLLM|Original exception:|Received Chunk=|"
    r"For more information check:|Handle with `|To drop (these|it|unsupported)",
)
_PAGE: Final = re.compile(r"<(!doctype|html|head|body)\b", re.IGNORECASE)
_TAGS: Final = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.IGNORECASE | re.DOTALL)


def _words(error: BaseException, key: str | None) -> str:
    """What the provider said, on one short line, without the key."""
    said = _AFTER.split(str(getattr(error, "message", "") or error)[:MAX_READ], maxsplit=1)[0]
    if key:
        said = said.replace(key, "•••")
    if _PAGE.search(said):
        said = _TAGS.sub(" ", said)
    said = _BEFORE.sub("", one_line(" ".join(said.split())))
    return said if len(said) <= MAX_WORDS else said[:MAX_WORDS] + "…"


def _retry_after(causes: list[BaseException]) -> float | None:
    """The seconds that a provider asks to wait, in either form of RFC 9110, or None."""
    for cause in causes:
        headers = getattr(getattr(cause, "response", None), "headers", None)
        if headers and "retry-after" in headers and (seconds := _seconds(str(headers["retry-after"]))) is not None:
            return seconds
    return None


def _seconds(asked: str) -> float | None:
    try:
        seconds = float(asked)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(asked).timestamp() - time.time()
        except ValueError:
            return None
    return None if math.isnan(seconds) else max(0.0, seconds)
