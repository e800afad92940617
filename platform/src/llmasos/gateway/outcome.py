"""How an answer ended, and the notices about it: another model was used, it was cut, it is empty."""

from __future__ import annotations

from dataclasses import dataclass

from llmasos.gateway.answers import Remarks
from llmasos.gateway.failures import ContentRefused, ModelSaidNothing
from llmasos.gateway.models import ModelEntry
from llmasos.gateway.plan import CallPlan
from llmasos.i18n import _, render


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """A complete answer. `limit` is the number of tokens that it was allowed."""

    entry: ModelEntry
    reason: str
    said: str
    thought: str
    calls_tools: bool
    limit: int

    def check_not_empty(self) -> None:
        """Refuse an answer without text, if its provider filtered it or the model only reasoned.

        Raises:
            ContentRefused: The provider withheld the answer.
            ModelSaidNothing: Reasoning used up all allowed tokens.
        """
        if self.said.strip() or self.calls_tools:
            return
        name = self.entry.name
        if self.reason == "content_filter":
            raise ContentRefused(
                _(
                    "The provider of {name} withheld the whole answer: its content filter does not allow it.",
                    name=name,
                ),
            )
        if self.thought.strip():
            raise ModelSaidNothing(
                _(
                    "The model {name} only reasoned, and gave no answer within {limit} tokens; allow a larger "
                    "max_tokens.",
                    name=name,
                    limit=self.limit,
                ),
            )

    def remarks(self, plan: CallPlan) -> Remarks:
        """The plan's remarks, and those about how the answer ended."""
        remarks, name = plan.remarks, self.entry.name
        if self.entry is not plan.entry:
            said = _("{entry} did not answer; {name} did.", entry=plan.entry.name, name=name)
            remarks = remarks.with_notice(render(said, plan.locale))
        if not self.said and not self.calls_tools:
            said = _("The model {name} gave an empty answer.", name=name)
            remarks = remarks.with_notice(render(said, plan.locale))
        elif plan.wants_json and self.reason == "length":
            said = _(
                "The answer was cut at {limit} tokens, so its JSON is not complete; allow a larger max_tokens.",
                limit=self.limit,
            )
            remarks = remarks.with_notice(render(said, plan.locale))
        elif self.reason == "content_filter":
            said = _("The provider of {name} cut the answer: its content filter does not allow the rest.", name=name)
            remarks = remarks.with_notice(render(said, plan.locale))
        return remarks
