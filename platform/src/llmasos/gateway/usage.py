"""What a model call used: as reported by the provider if that is plausible, or else as counted by the host."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from llmasos.gateway.models import ModelEntry
from llmasos.quotas.meters import NOTHING_USED, Used

logger = logging.getLogger(__name__)

# Providers add words of their own to a prompt (a date, rules for tools), and some let a model think beyond max_tokens.
# Up to this much above the reservation is believed; beyond that, only this much is charged.
SLACK_TOKENS: Final = 4096


@dataclass(frozen=True, slots=True)
class Counted:
    """The tokens of a call; `estimated` if the host counted, `doubted` if the provider's report is implausible."""

    prompt: int
    completion: int
    estimated: bool = False
    doubted: bool = False

    def used(self, entry: ModelEntry) -> Used:
        """Return the form that the kernel settles."""
        price = entry.price
        cost = None if price is None else price.cost_micro_usd(self.prompt, self.completion)
        return Used(self.prompt, self.completion, cost, entry.name)

    def as_usage(self) -> dict[str, int]:
        """Return the form of chat completions."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }


@dataclass(slots=True)
class Spent:
    """What a call used, available as soon as the provider reported it, even if the call then fails.

    `pending` is set while a provider has a request and has not reported its usage. A caller that gives up then is
    charged the whole reservation, since the provider may continue.
    """

    earlier: Used = NOTHING_USED
    """What models used that were called before, and whose answers were not taken."""
    used: Used = NOTHING_USED
    """What the model used that was called last."""
    pending: bool = False

    @property
    def total(self) -> Used:
        """What all of the models used."""
        return self.earlier + self.used

    def next_model(self) -> None:
        """Note that another model is called from now on."""
        self.earlier, self.used = self.total, NOTHING_USED

    def send(self) -> None:
        """Note that a request is about to be sent."""
        self.pending = True

    @contextmanager
    def settling(self) -> Generator[None]:
        """End `pending` with the block, unless the caller gave up."""
        try:
            yield
        except asyncio.CancelledError:
            raise
        except BaseException:
            self.pending = False
            raise
        self.pending = False


def reported_usage(response: Any) -> Counted | None:
    """The usage that the provider reported, or None. litellm fills in zeros if it reported none."""
    usage = getattr(response, "usage", None)
    if usage is None:
        return None
    prompt, completion = getattr(usage, "prompt_tokens", 0) or 0, getattr(usage, "completion_tokens", 0) or 0
    if not isinstance(prompt, int) or not isinstance(completion, int):
        return None
    return Counted(prompt, completion) if prompt or completion else None


def believed(reported: Counted, prompt_tokens: int, completion_tokens: int, entry: ModelEntry) -> Counted | None:
    """Return the reported usage, limited to what is plausible, or None if it is negative and the host has to count.

    A prompt or an answer of no tokens is left at 0, for the host to count.

    Args:
        reported: The provider's report.
        prompt_tokens: The most that the prompt can have.
        completion_tokens: The most that the answer was allowed.
        entry: The model, for the log.
    """
    most_prompt, most_completion = prompt_tokens + SLACK_TOKENS, completion_tokens + SLACK_TOKENS
    if 0 <= reported.prompt <= most_prompt and 0 <= reported.completion <= most_completion:
        return reported
    logger.warning(
        "the provider of %s reported a usage that cannot be: %d and %d tokens, at most %d and %d are possible",
        entry.name,
        reported.prompt,
        reported.completion,
        most_prompt,
        most_completion,
    )
    if reported.prompt < 0 or reported.completion < 0:
        return None
    return Counted(min(reported.prompt, most_prompt), min(reported.completion, most_completion), doubted=True)
