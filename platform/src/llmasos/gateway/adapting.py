"""Adapts requests after a server's refusal: a parameter has another name or is unsupported, or it cannot stream."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from llmasos.gateway.models import ModelEntry, Optional

# Where a refusal names two, the one to leave out comes first: of temperature and top_p, newer models take one alone.
OPTIONAL: Final[tuple[Optional, ...]] = ("top_p", "temperature", "seed", "stop", "stream_options", "stream")

_REFUSED: Final = re.compile(
    r"unsupported|not supported|not support|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed|extra inputs|"
    r"extra_forbidden|n[o']t support|not implemented|only the default|deprecated|cannot both be|"
    r"\u4e0d\u652f\u6301|\u672a\u77e5",
    re.IGNORECASE,
)
# "at most 512 completion tokens", "100000 > 8192, which is the maximum", "should be [1, 8192]".
_TOO_MANY: Final = re.compile(r"max_(completion_|output_|new_)?tokens.{0,200}", re.IGNORECASE | re.DOTALL)
_LIMIT: Final = re.compile(
    r"too (large|many|high|big)|at most|less than|exceed|maximum|range|between|[<>]=?|\u2264", re.IGNORECASE
)


def adapted(entry: ModelEntry, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters in the form that this model's server accepts."""
    sent = {name: value for name, value in parameters.items() if name not in entry.unsupported}
    if "stream" in entry.unsupported:
        sent.pop("stream_options", None)
    if entry.max_output_tokens is not None and "max_tokens" in sent:
        sent["max_tokens"] = min(sent["max_tokens"], entry.max_output_tokens)
    if entry.max_tokens_parameter != "max_tokens" and "max_tokens" in sent:
        sent[entry.max_tokens_parameter] = sent.pop("max_tokens")
    return sent


def learned(entry: ModelEntry, parameters: Mapping[str, Any], refusal: str) -> ModelEntry | None:
    """Return the entry changed as the refusal suggests, or None if it suggests nothing.

    Args:
        entry: The model that was called.
        parameters: The parameters of the call.
        refusal: The provider's error text.
    """
    asked = adapted(entry, parameters).get(entry.max_tokens_parameter)
    # Once only: a server that takes one token less at each refusal would be asked without end.
    if entry.max_output_tokens is None and (most := _most_tokens(refusal, asked)) is not None:
        return entry.model_copy(update={"max_output_tokens": most})
    refused = _REFUSED.search(refusal)
    named = "max_completion_tokens" in refusal or (refused and re.search(r"\bmax_tokens\b", refusal))
    if entry.max_tokens_parameter == "max_tokens" and named:
        return entry.model_copy(update={"max_tokens_parameter": "max_completion_tokens"})
    if not refused:
        return None
    for name in OPTIONAL:
        if name in parameters and name not in entry.unsupported and re.search(rf"\b{name}(ing)?\b", refusal, re.I):
            return entry.model_copy(update={"unsupported": (*entry.unsupported, name)})
    return None


def _most_tokens(refusal: str, asked: int | None) -> int | None:
    """The most tokens of an answer that a refusal of `asked` names, or None."""
    said = _TOO_MANY.search(refusal)
    if said is None or asked is None or not _LIMIT.search(said[0]):
        return None
    numbers = [int(digits) for digits in re.findall(r"\d{2,9}", said[0])]
    return max((number for number in numbers if number < asked), default=None)
