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

from llmasos.i18n import _
from llmasos.printable import one_line
from llmasos_server.cli.fetching import fetching
from llmasos_server.cli.output import emit_json, locale, note, options, say, say_part, tr

if TYPE_CHECKING:
    from llmasos.invocations.result import InvocationResult
    from llmasos.kernel.invocation import Event


def run(
    app: Annotated[
        str,
        typer.Argument(help=tr("An installed app, such as acme/translator.")),
    ],
    action: Annotated[str, typer.Argument(help=tr("One of its actions."))],
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            metavar="KEY=VALUE",
            help=tr("An input; may be given again. KEY=@FILE takes it from a file; KEY=@@TEXT is a text with one @."),
        ),
    ] = None,
    input_json: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="JSON",
            help=tr("All inputs as a JSON object; - reads stdin."),
        ),
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help=tr("Print the answer as it comes."))] = False,
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
            shown = fetching(tr("Fetching {name} ({size}, once)", name=name, size=size))
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
        raise Invalid(_("--input is not JSON: {error}.", error=error)) from error
    if not isinstance(value, dict):
        raise Invalid(_('--input takes a JSON object, such as \'{{"text": "…"}}\'.'))
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
            raise Invalid(_("-p {parameter}: write -p KEY=VALUE.", parameter=parameter))
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
            _(
                "-p {key}: {name} cannot be read: {reason}. Write @@{name} for the text itself.",
                key=key,
                name=name,
                reason=error.strerror,
            ),
        ) from error
    if len(content) > MAX_PAYLOAD_BYTES:
        raise Invalid(
            _(
                "-p {key}: {name} is larger than the {max_payload_kib} KiB that an action takes.",
                key=key,
                name=name,
                max_payload_kib=MAX_PAYLOAD_BYTES >> 10,
            ),
        )
    if as_base64:
        return base64.b64encode(content).decode()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Invalid(
            _("-p {key}: {name} is not a text in UTF-8, and this input takes a text.", key=key, name=name),
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
            _("-p {key}: {text!r} is not of type {wanted}; write it as JSON.", key=key, text=text[:60], wanted=wanted),
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
