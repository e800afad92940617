"""Finds the hooks that a plugin implements, by the markers on its functions."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Final, cast

from llmasos.errors import Invalid
from llmasos.hooks import PROJECT, Hooks
from llmasos.i18n import _

HOOK_NAMES: Final = tuple(sorted(name for name, value in vars(Hooks).items() if inspect.isfunction(value)))


def implemented_hooks(name: str, plugin: object) -> tuple[str, ...]:
    """Find the hooks that a plugin implements.

    Raises:
        Invalid: It implements none, an unknown one, or one as something other than a plain function.
    """
    hooks: list[str] = []
    for attribute in dir(plugin):
        value = inspect.getattr_static(plugin, attribute)
        options = getattr(value, f"{PROJECT}_impl", None)
        if not isinstance(options, Mapping):
            continue
        marks = cast(Mapping[str, object], options)
        hook = str(marks.get("specname") or attribute)
        if hook not in HOOK_NAMES:
            raise _unknown_hook(name, hook)
        function = inspect.unwrap(getattr(value, "__func__", value))
        strange = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
        plain = inspect.isroutine(getattr(plugin, attribute)) and not any(is_one(function) for is_one in strange)
        if marks.get("wrapper") or marks.get("hookwrapper") or not plain:
            raise Invalid(
                _(
                    "the plugin {name} implements {hook} as a wrapper, a generator, a coroutine or a class; the "
                    "host calls plain functions only",
                    name=name,
                    hook=hook,
                ),
            )
        hooks.append(hook)
    if not hooks:
        raise Invalid(
            _("the plugin {name} implements no hook; mark its functions with llmasos.hooks.hookimpl", name=name),
        )
    return tuple(hooks)


def _unknown_hook(name: str, hook: str) -> Invalid:
    near = difflib.get_close_matches(hook, HOOK_NAMES, n=1)
    hooks = ", ".join(HOOK_NAMES)
    hint = _("did you mean {near}?", near=near[0]) if near else _("the hooks are {hooks}", hooks=hooks)
    return Invalid(
        _("the plugin {name} implements {hook}, which is not a hook; {hint}", name=name, hook=hook, hint=hint),
    )
