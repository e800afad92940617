"""What pydantic finds wrong with a value, in English and Chinese.

Pydantic speaks English only. Its kinds of faults that our models can meet stand here with their Chinese; a rare one
that does not keeps pydantic's English after a Chinese word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class Misfit(ValueError):
    """What a validator of ours finds wrong with a value."""

    def __init__(self, en: str, zh: str) -> None:
        """Say it in both languages."""
        super().__init__(en)
        self.zh = zh


_ZH: Final[Mapping[str, str]] = {
    "missing": "缺少此项",
    "extra_forbidden": "没有此字段",
    "string_type": "须为字符串",
    "int_type": "须为整数",
    "int_parsing": "须为整数",
    "int_from_float": "须为整数",
    "float_type": "须为数字",
    "float_parsing": "须为数字",
    "finite_number": "须为有限的数字",
    "bool_type": "须为 true 或 false",
    "bool_parsing": "须为 true 或 false",
    "list_type": "须为数组",
    "tuple_type": "须为数组",
    "dict_type": "须为对象",
    "model_type": "须为对象",
    "model_attributes_type": "须为对象",
    "json_invalid": "不是有效的 JSON（{error}）",
    "literal_error": "须为以下之一：{expected}",
    "enum": "须为以下之一：{expected}",
    "union_tag_invalid": "{tag} 不在以下之中：{expected_tags}",
    "greater_than": "须大于 {gt}",
    "greater_than_equal": "不得小于 {ge}",
    "less_than": "须小于 {lt}",
    "less_than_equal": "不得大于 {le}",
    "string_too_short": "长度不得小于 {min_length}",
    "string_too_long": "长度不得大于 {max_length}",
    "too_short": "至少需要 {min_length} 项",
    "too_long": "最多 {max_length} 项",
    "string_pattern_mismatch": "格式不符：{pattern}",
}


def in_both(detail: ErrorDetails) -> tuple[str, str]:
    """What one of pydantic's faults says, in English and Chinese."""
    en = detail["msg"]
    context: Mapping[str, Any] = detail.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, Misfit):
        return str(cause), cause.zh
    template = _ZH.get(detail["type"])
    # As pydantic writes them: a limit of 1.0 is 1.
    context = {key: f"{value:g}" if isinstance(value, float) else value for key, value in context.items()}
    return en, f"无效（{en}）" if template is None else template.format_map(context).replace(" or ", " 或 ")
