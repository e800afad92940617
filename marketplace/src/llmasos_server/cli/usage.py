"""What Typer says of a command line that it cannot read, in Chinese. Typer itself speaks English only."""

from __future__ import annotations

import re
from typing import Any, Final

from llmasos.i18n import _

_KINDS: Final = {"argument": "参数", "option": "选项", "parameter": "参数"}

# What Typer says, and the same in Chinese, filled from the parts that were found.
_ZH: Final = tuple(
    (re.compile(pattern, re.DOTALL), zh)
    for pattern, zh in (
        _("No such option: (?P<a>\\S+) \\(Possible options: (?P<b>.*)\\)"),
        _("No such option: (?P<a>\\S+)"),
        _("Missing command\\."),
        _("Missing (?P<kind>argument|option|parameter) (?P<a>.*?)\\.(?: .*)?"),
        _("No such command (?P<a>.*)\\."),
        _("Got unexpected extra argument\\(s\\) \\((?P<a>.*)\\)"),
        _("Option (?P<a>\\S+) requires an argument\\."),
        _("Option (?P<a>\\S+) requires (?P<b>\\d+) arguments\\."),
        _("Option (?P<a>\\S+) does not take a value\\."),
        _("Argument (?P<a>\\S+) takes (?P<b>\\d+) values\\."),
        _("Invalid value for (?P<a>.*?): (?P<said>.*)"),
        _("Invalid value: (?P<said>.*)"),
        _("(?:Value error, )?(?P<a>.*) is not one of (?P<b>.*)\\."),
        _("(?:Path|File|Directory) (?P<a>.*) does not exist\\."),
        _("(?:Path|File|Directory) (?P<a>.*) is a file\\."),
        _("(?:Path|File|Directory) (?P<a>.*) is a directory\\."),
        _("(?:Path|File|Directory) (?P<a>.*) is not readable\\."),
        _("(?:Path|File|Directory) (?P<a>.*) is not writable\\."),
    )
)


def in_chinese(error: Any) -> str:
    """A `typer.TyperException` in Chinese; what is not known here stays in English."""
    said = " ".join(str(error.format_message()).split())
    cause: Any = error.__cause__
    if hasattr(cause, "errors"):  # pydantic's, which Typer converts values with
        from llmasos.validation import in_both

        en, zh = in_both(cause.errors()[0])
        said = said.replace(en, _translated(en) if en.startswith("Value error, ") else zh)
    return _translated(said)


def _translated(said: str) -> str:
    for pattern, zh in _ZH:
        found = pattern.fullmatch(said)
        if found is not None:
            parts = found.groupdict()
            if "said" in parts:
                parts["said"] = _translated(parts["said"])
            if "kind" in parts:
                parts["kind"] = _KINDS[parts["kind"]]
            return zh.format_map(parts)
    return said
