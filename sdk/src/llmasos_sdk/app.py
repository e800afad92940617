"""An app: its actions, described and called by JSON."""

from __future__ import annotations

import inspect
import json
import re
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, TypeVar, cast, get_args, get_origin, overload

from llmasos_sdk import docstrings, schema
from llmasos_sdk.context import Context
from llmasos_sdk.decoding import decode_arguments
from llmasos_sdk.encoding import encode_as
from llmasos_sdk.errors import AppError, AppFailed, Invalid, NotFound, SchemaMismatch
from llmasos_sdk.hints import Hint
from llmasos_sdk.hooks import LIFECYCLE_EVENTS, hookimpl
from llmasos_sdk.host import Host, JsonValue
from llmasos_sdk.messages import Message, well_formed
from llmasos_sdk.messages import message as _
from llmasos_sdk.signatures import result_of, signature_of
from llmasos_sdk.sources import authors_file

F = TypeVar("F", bound=Callable[..., object])
Title = str | Mapping[str, str]
Lifecycle = Callable[..., None]

# Built once: `json.dumps` would build an encoder for every result.
_to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode

# An action's name becomes a route, a command and a tool.
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


def sentence_case(name: str) -> str:
    """`pick_label` as `Pick label`."""
    return name.replace("_", " ").strip().capitalize()


@dataclass(frozen=True)
class Action:
    """One function of an app that a person or program calls."""

    name: str
    function: Callable[..., object]
    title: Title

    @cached_property
    def inputs(self) -> tuple[dict[str, Hint], dict[str, object]]:
        """The hints and defaults of the inputs, by name, the context left out."""
        return signature_of(self.function, skip=1)

    @cached_property
    def streaming(self) -> bool:
        """Whether it streams its result: it is a generator, or its hint says that it returns one."""
        if inspect.isgeneratorfunction(inspect.unwrap(self.function)):
            return True
        hinted: object = get_origin(result_of(self.function))
        return any(hinted is each for each in (Generator, Iterator, Iterable))

    @cached_property
    def output(self) -> Hint:
        """The hint of the final output. For a generator, of what it returns, else of the text that it yielded."""
        hint = result_of(self.function)
        if not self.streaming:
            return hint
        if hint is Any:
            return Any
        arguments = get_args(hint)
        origin: object = get_origin(hint)
        returned = arguments[2] if origin is Generator and len(arguments) == 3 else None
        return str if returned in (None, type(None)) else returned

    @cached_property
    def description(self) -> dict[str, JsonValue]:
        """The action's entry in `actions.json`.

        Raises:
            TypeError: A hint has no JSON Schema.
        """
        told = docstrings.read(self.function)
        title = self.title
        try:
            return {
                "name": self.name,
                "title": {"en": title} if isinstance(title, str) else dict(title),
                "description": told.summary,
                "input_schema": schema.object_schema(*self.inputs, told),
                "output_schema": schema.schema_of(self.output),
                "streaming": self.streaming,
            }
        except (TypeError, NameError) as error:
            raise TypeError(f"action {self.name}: {error}") from error

    def arguments(self, value: Mapping[str, JsonValue]) -> dict[str, Any]:
        """The function's arguments from decoded JSON.

        Raises:
            SchemaMismatch: The input does not match its schema.
        """
        hints, defaults = self.inputs
        return decode_arguments(hints, hints.keys() - defaults.keys(), value)

    def run(self, ctx: Context, value: Mapping[str, JsonValue]) -> JsonValue:
        """Run it on decoded JSON; each piece of a generator is sent at once.

        Raises:
            SchemaMismatch: The input, or the function's result, does not match its schema.
        """
        answer = self.function(ctx, **self.arguments(value))
        if self.streaming:
            answer = self._send(ctx, iter(cast("Iterable[object]", answer)))
        try:
            return encode_as(self.output, answer)
        except SchemaMismatch as error:
            raise AppFailed(
                _(
                    "action {action} returned something else than it promises: {error}",
                    action=self.name,
                    error=error.message,
                )
            ) from error

    def _send(self, ctx: Context, pieces: Iterator[object]) -> object:
        sent: list[str] = []
        # If a model's piece ends in half a character, keep that half until the other arrives.
        half = ""
        try:
            while True:
                piece = next(pieces)
                if not isinstance(piece, str):
                    raise AppFailed(
                        _(
                            "action {action} yields a {kind}; a piece is a text",
                            action=self.name,
                            kind=type(piece).__name__,
                        )
                    )
                # Through UTF-16, in which two adjacent halves are one character.
                piece = (half + piece).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
                half = piece[-1:] if "\ud800" <= piece[-1:] <= "\udbff" else ""
                piece = piece[: len(piece) - len(half)]
                ctx.host.call("output", "chunk", piece)
                sent.append(piece)
        except StopIteration as end:
            if half:
                ctx.host.call("output", "chunk", half)
                sent.append(half)
            return "".join(sent) if end.value is None else end.value
        finally:
            if isinstance(pieces, Generator):
                pieces.close()


def takes_context(function: Callable[..., object]) -> bool:
    """Whether a function's first parameter is the context: by its hint under any name, or without a hint."""
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters:
        return False
    written: object = parameters[0].annotation
    hint = written
    if isinstance(written, str):
        # A postponed or quoted hint: resolve it in the author's module.
        names = getattr(inspect.unwrap(function), "__globals__", {})
        try:
            hint = cast("object", eval(written, names))  # noqa: S307 (the author's own hint, as typing evaluates it)
        except (NameError, AttributeError):  # imported for type checkers alone
            return written.rpartition(".")[2] == Context.__name__
    return hint is Context or hint is inspect.Parameter.empty


class App:
    """The actions of one app. It is also the pluggy plugin that a native runner loads.

    Example:
        app = App()

        @app.action(title={"en": "Shout", "zh": "大声说"})
        def shout(ctx: Context, text: str) -> str:
            return text.upper()
    """

    def __init__(self) -> None:
        self._actions: dict[str, Action] = {}
        self._lifecycle: dict[str, Lifecycle] = {}

    @overload
    def action(self, function: F) -> F: ...
    @overload
    def action(self, *, name: str | None = None, title: Title | None = None) -> Callable[[F], F]: ...
    def action(
        self, function: F | None = None, *, name: str | None = None, title: Title | None = None
    ) -> F | Callable[[F], F]:
        """Register a function as an action. It stays callable as before.

        Args:
            function: Its first parameter is the `Context`; the others are its inputs.
            name: The name for callers; by default the function's name.
            title: The title for people; a text, or texts by locale.

        Raises:
            TypeError: The function is async, or has no context parameter.
            ValueError: There is an action of that name.
        """

        def register(function: F) -> F:
            self._register(function, name or function.__name__, title)
            return function

        return register if function is None else register(function)

    def _register(self, function: Callable[..., object], name: str, title: Title | None) -> None:
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"action {name} is async; write it as a plain `def`. Each run has its own instance or thread, "
                "so waiting in it holds up nobody, and a generator streams."
            )
        if not takes_context(function):
            raise TypeError(f"action {name}: its first parameter takes the context: `def {name}(ctx: Context, ...)`")
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name of an action: use a-z, 0-9 and _, and begin with a letter")
        if name in self._actions:
            raise ValueError(f"there is an action {name} already")
        self._actions[name] = Action(name, function, title or sentence_case(name))

    def on_install(self, function: Lifecycle) -> Lifecycle:
        """Run `function(ctx)` after an installation; see `llmasos_sdk.hooks` for the rules of every hook."""
        return self._on("install", function)

    def on_upgrade(self, function: Lifecycle) -> Lifecycle:
        """Run `function(ctx, from_version)` after a change to another release, newer or, at a rollback, older."""
        return self._on("upgrade", function)

    def on_uninstall(self, function: Lifecycle) -> Lifecycle:
        """Run `function(ctx)` before an installation is removed."""
        return self._on("uninstall", function)

    def on_event(self, function: Lifecycle) -> Lifecycle:
        """Run `function(ctx, event)` at each event; `llmasos_sdk.hooks` lists them."""
        return self._on("event", function)

    def _on(self, event: str, function: Lifecycle) -> Lifecycle:
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"on_{event} is async; write it as a plain `def`")
        if event in self._lifecycle:
            raise ValueError(f"there is an on_{event} already")
        self._lifecycle[event] = function
        return function

    def describe(self) -> list[dict[str, JsonValue]]:
        """The content of `actions.json`: the actions in order of registration, then the lifecycle events.

        Raises:
            TypeError: A hint has no JSON Schema; the message names the action.
        """
        events: list[dict[str, JsonValue]] = [
            {"name": f"@{event}"} for event in LIFECYCLE_EVENTS if event in self._lifecycle
        ]
        return [action.description for action in self._actions.values()] + events

    def call(self, name: str, input_json: str, ctx: Context) -> str:
        """Run an action on JSON text, and return JSON text; or, by a name such as `@install`, a lifecycle hook.

        Raises:
            NotFound: There is no such action or hook.
            Invalid: The input does not match, or the app failed with an error of its own; the log has its traceback.
            AppError: A capability's error that the action did not catch.
        """
        if name.startswith("@"):
            return self._at_event(name, input_json, ctx)
        action, value = self._called(name, input_json)
        return well_formed(self._guard(ctx, lambda: _to_json(action.run(ctx, value))))

    def check_input(self, name: str, input_json: str) -> None:
        """Refuse an input that does not match its action's schema, as a host does before it calls the app.

        Raises:
            NotFound: There is no such action.
            Invalid: It does not match.
        """
        if not name.startswith("@"):
            action, value = self._called(name, input_json)
            action.arguments(value)

    def _called(self, name: str, input_json: str) -> tuple[Action, dict[str, JsonValue]]:
        action = self._actions.get(name)
        if action is None:
            known = list(self._actions) or _("none")
            raise NotFound(_("there is no action {name!r}; this app has: {known}", name=name, known=known))
        try:
            value: JsonValue = json.loads(input_json or "{}")
        except (ValueError, RecursionError) as error:
            raise Invalid(_("the input is not JSON: {error}", error=error)) from error
        if not isinstance(value, dict):
            raise Invalid(_("the input is a JSON object, with a key for each input of the action"))
        return action, value

    def _at_event(self, name: str, input_json: str, ctx: Context) -> str:
        if name[1:] not in self._lifecycle:
            raise NotFound(_("this app has no hook for {name}", name=name))
        told: dict[str, JsonValue] = json.loads(input_json or "{}")
        self._happen(name[1:], ctx, *told.values())
        return "null"

    def _guard(self, ctx: Context, run: Callable[[], Any]) -> Any:
        """Run the author's code; an error of its own becomes one of the contract's, with its traceback logged."""
        try:
            return run()
        except AppError:
            raise
        except Exception as error:
            ctx.log.error(traceback.format_exc())
            raise AppFailed(_told(error, self._source())) from error

    def _source(self) -> str:
        """The file of the module whose functions are the actions; empty if there is none."""
        functions = (inspect.unwrap(each.function) for each in self._actions.values())
        codes = (getattr(function, "__code__", None) for function in functions)
        return next((str(code.co_filename) for code in codes if code is not None), "")

    @hookimpl(specname="actions")
    def _hook_actions(self) -> list[dict[str, JsonValue]]:
        return self.describe()

    @hookimpl(specname="call")
    def _hook_call(self, host: Host, action: str, input_json: str) -> str:
        return self.call(action, input_json, Context(host))

    @hookimpl(specname="install")
    def _hook_install(self, host: Host) -> None:
        self._happen("install", Context(host))

    @hookimpl(specname="upgrade")
    def _hook_upgrade(self, host: Host, from_version: str) -> None:
        self._happen("upgrade", Context(host), from_version)

    @hookimpl(specname="uninstall")
    def _hook_uninstall(self, host: Host) -> None:
        self._happen("uninstall", Context(host))

    @hookimpl(specname="event")
    def _hook_event(self, host: Host, event: Mapping[str, JsonValue]) -> None:
        self._happen("event", Context(host), event)

    def _happen(self, event: str, ctx: Context, *arguments: object) -> None:
        function = self._lifecycle.get(event)
        if function is not None:
            self._guard(ctx, lambda: function(ctx, *arguments))


def _told(error: Exception, source: str) -> Message:
    """Describe an error in one line: its class, its message, and the line of the author's code that led to it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = ""
    for frame in reversed(frames):
        name = authors_file(frame.filename, source)
        if name is not None:
            where = f" ({name}, line {frame.lineno})"
            break
    said = " ".join(str(error).split())
    return _("the app failed: {error}", error=f"{type(error).__name__}{': ' if said else ''}{said}{where}")


def find_app(module: ModuleType) -> App:
    """Find the app of a module: its `app`, else the only `App` in it.

    Raises:
        LookupError: There is none, or there are several.
    """
    named = getattr(module, "app", None)
    if isinstance(named, App):
        return named
    found = [value for value in vars(module).values() if isinstance(value, App)]
    if len(found) != 1:
        raise LookupError(f"{module.__name__} holds {len(found)} apps; write `app = App()` in it")
    return found[0]
