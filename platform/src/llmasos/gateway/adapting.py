"""Adapts requests after a server's refusal: a parameter has another name or is unsupported, or it cannot stream."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from llmasos.gateway.models import ModelEntry, Optional

OPTIONAL: Final[tuple[Optional, ...]] = ("temperature", "top_p", "seed", "stop", "stream_options", "stream")

_REFUSED: Final = re.compile(
    r"unsupported|not supported|not support|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed|extra inputs|"
    r"does not support|only the default",
    re.IGNORECASE,
)


def adapted(entry: ModelEntry, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters in the form that this model's server accepts."""
    sent = {name: value for name, value in parameters.items() if name not in entry.unsupported}
    if "stream" in entry.unsupported:
        sent.pop("stream_options", None)
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
    if entry.max_tokens_parameter == "max_tokens" and "max_completion_tokens" in refusal:
        return entry.model_copy(update={"max_tokens_parameter": "max_completion_tokens"})
    if not _REFUSED.search(refusal):
        return None
    for name in OPTIONAL:
        if name in parameters and name not in entry.unsupported and re.search(rf"\b{name}(ing)?\b", refusal):
            return entry.model_copy(update={"unsupported": (*entry.unsupported, name)})
    return None
