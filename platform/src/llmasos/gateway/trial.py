"""Tries a model: asks it for a few words through all of the gateway, and keeps what its server's refusals taught."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from llmasos.gateway.gateway import Gateway
from llmasos.gateway.request import EmbedRequest, GenerateRequest
from llmasos.quotas.meters import Used

_LEARNED = ("max_tokens_parameter", "max_output_tokens", "unsupported")


@dataclass(frozen=True, slots=True)
class Trial:
    """How a model did."""

    said: str
    """Its answer; of an embedding model, how many numbers it returned."""
    used: Used
    duration_ms: int
    learned: dict[str, Any]
    """The fields of an added model's entry that its server needs and that were changed."""


async def try_model(gateway: Gateway, name: str, locale: str) -> Trial:
    """Ask a model for a few words.

    Raises:
        NotFound: There is no such model.
        ModelUnavailable: It does not respond.
    """
    started = time.monotonic()
    if gateway.registry.get(name).kind == "embedding":
        embedded = await gateway.embed(EmbedRequest(input=["a lighthouse"], model=name))
        said, used = f"{len(embedded.value['data'][0]['embedding'])} numbers", embedded.used
    else:
        question = {"role": "user", "content": "Say hello in one short sentence."}
        request = GenerateRequest.model_validate({"messages": [question], "model": name, "max_tokens": 32})
        answer = await gateway.generate(gateway.plan(request, locale=locale))
        said, used = answer.text, answer.used
    learned = _keep_learned(gateway, name)
    return Trial(said, used, round((time.monotonic() - started) * 1000), learned)


def _keep_learned(gateway: Gateway, name: str) -> dict[str, Any]:
    """Write what the server's refusals taught into an added model's entry; the fields that changed."""
    before, after = gateway.registry.get(name), gateway.learned(name)
    changed = {field: getattr(after, field) for field in _LEARNED if getattr(after, field) != getattr(before, field)}
    if changed and before.source == "added":
        gateway.registry.add(after, replace=True)
    return changed
