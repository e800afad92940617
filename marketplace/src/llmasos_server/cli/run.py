"""`run`: run an action, here or on a running server."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmasos.printable import one_line
from llmasos_server.cli.fetching import fetching
from llmasos_server.cli.output import emit_json, locale, note, options, say, say_part, tr

if TYPE_CHECKING:
    from llmasos.invocations.result import InvocationResult
    from llmasos.kernel.invocation import Event


def run(
    app: Annotated[
        str,
        typer.Argument(help=tr("An installed app, such as acme/translator.", "已安装的应用，例如 acme/translator。")),
    ],
    action: Annotated[str, typer.Argument(help=tr("One of its actions.", "应用的一个操作。"))],
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            metavar="KEY=VALUE",
            help=tr(
                "An input; may be given again. KEY=@FILE takes it from a file; KEY=@@TEXT is a text with one @.",
                "一项输入，可重复给出。KEY=@FILE 从文件读取；KEY=@@TEXT 表示以一个 @ 开头的文本。",
            ),
        ),
    ] = None,
    input_json: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="JSON",
            help=tr("All inputs as a JSON object; - reads stdin.", "以 JSON 对象给出全部输入；- 表示从标准输入读取。"),
        ),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help=tr("Print the answer as it comes.", "边生成边输出回答。"))
    ] = False,
) -> None:
    """Run an action of an installed app and print its answer."""
    result = asyncio.run(_run(app, action, parameter or [], input_json, stream))
    if options().json:
        usage = asdict(result.usage)
        model = usage.pop("model")
        told = {"id": result.id, "app": app, "action": action, "output": result.output, "model": model, "usage": usage}
        emit_json({**told, "notices": list(result.notices)})


async def _run(app: str, action: str, parameters: list[str], input_json: str | None, stream: bool) -> InvocationResult:
    from llmasos.connection import connected
    from llmasos.kernel.invocation import Principal
    from llmasos.settings import Settings

    given = _given(input_json)
    fetches = _Fetches()
    async with connected(Settings(), Principal(locale=locale()), fetches.told) as connection:
        schema = await connection.input_schema(app, action)
        shown = not options().json and (stream or (bool(schema["x-streaming"]) and sys.stdout.isatty()))
        printer = _Printer(shown)
        value = {**given, **parsed_parameters(schema, parameters)} if parameters else given
        with closing(fetches):
            result = await connection.run(app, action, value, printer.show)
    if not options().json:
        printer.finish(result.output)
    return result


class _Fetches:
    """Shows that a model is fetched at its first use: a bar on a terminal, one line elsewhere."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._tell: dict[str, Callable[[int, int], None]] = {}

    def told(self, name: str, done: int, total: int) -> None:
        """Called from the thread that fetches."""
        if name not in self._tell:
            size = f"{total >> 20} MiB"
            shown = fetching(tr(f"Fetching {name} ({size}, once)", f"正在下载 {name}（{size}，仅一次）"))
            self._tell[name] = self._stack.enter_context(shown)
        self._tell[name](done, total)
        if done >= total:
            self._stack.close()

    def close(self) -> None:
        """Take the bar away, where the fetch did not come to its end."""
        self._stack.close()


class _Printer:
    """Prints an answer as it comes, or whole at its end."""

    def __init__(self, streams: bool) -> None:
        self._streams = streams
        self._streamed = False

    async def show(self, event: Event) -> None:
        match event.kind:
            case "chunk" if self._streams:
                self._streamed = True
                say_part(event.text)
            case "progress" if sys.stderr.isatty():
                note(f"{event.fraction:4.0%} {one_line(event.text)}")
            case "notice":
                note(one_line(event.text))
            case _:
                pass

    def finish(self, output: Any) -> None:
        if self._streamed:
            say()
        elif isinstance(output, str):
            say(output)
        else:
            emit_json(output)


def _given(text: str | None) -> dict[str, Any]:
    from llmasos.errors import Invalid

    if text is None:
        return {}
    try:
        value = json.loads((sys.stdin.read() if text == "-" else text).removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise Invalid(f"--input is not JSON: {error}.", zh=f"--input 不是有效的 JSON：{error}。") from error
    if not isinstance(value, dict):
        raise Invalid('--input takes a JSON object, such as \'{"text": "…"}\'.', zh="--input 需要一个 JSON 对象。")
    return value  # pyright: ignore[reportUnknownVariableType]


def parsed_parameters(schema: Mapping[str, Any], parameters: list[str]) -> dict[str, Any]:
    """The values of `-p key=value`, read as their fields' types; `@file` is what the file holds, `@@` one `@`.

    Raises:
        Invalid: One has no `=`, is not of its field's type, or names a file that cannot be read.
    """
    from llmasos.errors import Invalid

    fields: Mapping[str, Any] = schema.get("properties", {})
    values: dict[str, Any] = {}
    for parameter in parameters:
        key, equals, text = parameter.partition("=")
        if not equals:
            raise Invalid(f"-p {parameter}: write -p KEY=VALUE.", zh=f"-p {parameter}：请写成 -p 名称=值。")
        field = fields.get(key, {})
        if text.startswith("@@"):
            text = text[1:]
        elif text.startswith("@"):
            text = _from_file(key, text[1:], as_base64=field.get("x-ui") == "file")
        values[key] = _typed(key, field, text)
    return values


def _from_file(key: str, name: str, *, as_base64: bool) -> str:
    """What a file holds: base64 for an input that takes a file, else its text."""
    from llmasos.errors import Invalid
    from llmasos_runner.protocol import MAX_PAYLOAD_BYTES

    path = Path(name)
    try:
        # One byte more than fits: a file that never ends is not read for ever.
        with path.open("rb") as file:
            content = file.read(MAX_PAYLOAD_BYTES + 1)
    except OSError as error:
        raise Invalid(
            f"-p {key}: {name} cannot be read: {error.strerror}. Write @@{name} for the text itself.",
            zh=f"-p {key}：无法读取 {name}：{error.strerror}。若要原样传入该文本，请写 @@{name}。",
        ) from error
    if len(content) > MAX_PAYLOAD_BYTES:
        raise Invalid(
            f"-p {key}: {name} is larger than the {MAX_PAYLOAD_BYTES >> 10} KiB that an action takes.",
            zh=f"-p {key}：{name} 超过操作可接受的 {MAX_PAYLOAD_BYTES >> 10} KiB。",
        )
    if as_base64:
        return base64.b64encode(content).decode()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Invalid(
            f"-p {key}: {name} is not a text in UTF-8, and this input takes a text.",
            zh=f"-p {key}：{name} 不是 UTF-8 文本，而此输入需要文本。",
        ) from error


def _typed(key: str, field: Mapping[str, Any], text: str) -> Any:
    from llmasos.errors import Invalid

    kinds = _kinds(field)
    if not kinds or kinds == {"string"}:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if "string" in kinds:
            return text
        wanted = " / ".join(sorted(kinds))
        raise Invalid(
            f"-p {key}: {text[:60]!r} is not of type {wanted}; write it as JSON.",
            zh=f"-p {key}：{text[:60]!r} 不是 {wanted} 类型；请写成 JSON。",
        ) from error


def _kinds(field: Mapping[str, Any]) -> set[str]:
    """The types that a field's schema allows, as far as it names them."""
    if "enum" in field:
        return {"string" if isinstance(each, str) else "other" for each in field["enum"]}
    kind = field.get("type")
    kinds = set(kind if isinstance(kind, list) else [kind] if kind else [])  # pyright: ignore[reportUnknownArgumentType]
    for each in field.get("anyOf", ()):
        kinds |= _kinds(each)
    return kinds
