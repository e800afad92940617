"""What Typer says of a command line that it cannot read, in Chinese. Typer itself speaks English only."""

from __future__ import annotations

import re
from typing import Any, Final

_KINDS: Final = {"argument": "参数", "option": "选项", "parameter": "参数"}

# What Typer says, and the same in Chinese, filled from the parts that were found.
_ZH: Final = tuple(
    (re.compile(pattern, re.DOTALL), zh)
    for pattern, zh in (
        (r"No such option: (?P<a>\S+) \(Possible options: (?P<b>.*)\)", "没有选项 {a}（可用：{b}）"),
        (r"No such option: (?P<a>\S+)", "没有选项 {a}"),
        (r"Missing command\.", "缺少子命令"),
        (r"Missing (?P<kind>argument|option|parameter) (?P<a>.*?)\.(?: .*)?", "缺少{kind} {a}"),
        (r"No such command (?P<a>.*)\.", "没有命令 {a}"),
        (r"Got unexpected extra argument\(s\) \((?P<a>.*)\)", "多余的参数：{a}"),
        (r"Option (?P<a>\S+) requires an argument\.", "选项 {a} 需要一个值"),
        (r"Option (?P<a>\S+) requires (?P<b>\d+) arguments\.", "选项 {a} 需要 {b} 个值"),
        (r"Option (?P<a>\S+) does not take a value\.", "选项 {a} 不接受值"),
        (r"Argument (?P<a>\S+) takes (?P<b>\d+) values\.", "参数 {a} 需要 {b} 个值"),
        (r"Invalid value for (?P<a>.*?): (?P<said>.*)", "{a} 的值无效：{said}"),
        (r"Invalid value: (?P<said>.*)", "值无效：{said}"),
        (r"(?:Value error, )?(?P<a>.*) is not one of (?P<b>.*)\.", "{a} 不在可选值之中：{b}"),
        (r"(?:Path|File|Directory) (?P<a>.*) does not exist\.", "{a} 不存在"),
        (r"(?:Path|File|Directory) (?P<a>.*) is a file\.", "{a} 是文件"),
        (r"(?:Path|File|Directory) (?P<a>.*) is a directory\.", "{a} 是目录"),
        (r"(?:Path|File|Directory) (?P<a>.*) is not readable\.", "{a} 不可读"),
        (r"(?:Path|File|Directory) (?P<a>.*) is not writable\.", "{a} 不可写"),
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
