"""Inside a component: the host's functions are the component's imports, and the app is its `handler` export.

`llmasos build` writes the entry module that joins the two. componentize-py runs it once at build time and keeps the
resulting memory, so that importing and describing cost a run nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, cast

from llmasos_sdk.app import App
from llmasos_sdk.context import Context
from llmasos_sdk.errors import AppError, CapabilityNotDeclared, Unavailable, from_tag
from llmasos_sdk.host import JsonValue, carried
from llmasos_sdk.messages import message as _
from llmasos_sdk.messages import to_text, well_formed


class ComponentHost:
    """The port over the imports that componentize-py made of the world."""

    def __init__(self, interfaces: Mapping[str, ModuleType], err: type[Exception]) -> None:
        self._interfaces = interfaces
        self._err = err

    @property
    def capabilities(self) -> frozenset[str]:
        """The interfaces that the world imports."""
        return frozenset(self._interfaces)

    def call(self, capability: str, function: str, *arguments: JsonValue) -> JsonValue:
        """Call an imported function; see `Host.call`."""
        interface = self._interfaces.get(capability)
        if interface is None:
            raise CapabilityNotDeclared(_("the component does not import {capability}", capability=capability))
        values = carried(capability, function, arguments)
        try:
            answer: JsonValue = getattr(interface, function.replace("-", "_"))(*values)
        except self._err as failure:
            raise _error_of(cast("Any", failure).value) from None
        return answer


def _error_of(case: Any) -> AppError:
    """The contract's error from its generated class, such as `Error_NotFound`."""
    words = re.findall(r"[A-Z][a-z]*", type(case).__name__.removeprefix("Error_"))
    return from_tag("-".join(words).lower(), str(case.value))


def handler(app: App, interfaces: Mapping[str, ModuleType], types: ModuleType, err: type[Exception]) -> type:
    """The class that componentize-py exports as the interface `handler`.

    Args:
        app: The author's.
        interfaces: The imported interfaces, by name.
        types: The generated module of the interface `types`.
        err: The generated exception `Err`.
    """
    host = ComponentHost(interfaces, err)
    described = json.dumps(app.describe(), ensure_ascii=False)
    failure = failure_maker(types, err)

    class Handler:
        def describe(self) -> str:
            return described

        def call(self, action: str, input: str) -> str:  # noqa: A002 (the contract's name)
            try:
                return app.call(action, input, Context(host))
            except AppError as error:
                raise failure(error) from None
            except RecursionError:
                raise failure(Unavailable(_("the app recursed too deeply"))) from None

    return Handler


def failure_maker(types: ModuleType, err: type[Exception]) -> Callable[[AppError], Exception]:
    """A function that makes the exception for the host from an error.

    Args:
        types: The generated module of the interface `types`.
        err: The generated exception `Err`.
    """

    def failure(error: AppError) -> Exception:
        case = "".join(word.capitalize() for word in error.tag.split("-"))
        return err(getattr(types, f"Error_{case}")(well_formed(to_text(error.message))))

    return failure
