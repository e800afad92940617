"""Pydantic's errors, in English and Chinese."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from llmasos.i18n import Message, render
from llmasos.validation import Misfit, misfit


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=2, max_length=4, pattern="^[a-z]+$")] = "ab"
    count: Annotated[int, Field(ge=1, le=9)] = 1
    share: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.5
    kind: Literal["a", "b"] = "a"
    parts: Annotated[list[str], Field(min_length=1, max_length=2)] = ["x"]
    odd: int = 1

    @field_validator("odd")
    @classmethod
    def _is_odd(cls, value: int) -> int:
        if value == 2:
            raise Misfit(Message("it is even"))
        if value == 4:
            raise ValueError("it is four")
        return value


@pytest.mark.parametrize(
    ("value", "en", "zh"),
    [
        ({"name": 1}, "must be a string", "须为字符串"),
        ({"name": "a"}, "must have at least 2 characters", "长度不得小于 2"),
        ({"name": "abcde"}, "must have at most 4 characters", "长度不得大于 4"),
        ({"name": "AB"}, "does not match ^[a-z]+$", "格式不符：^[a-z]+$"),
        ({"count": "x"}, "must be a whole number", "须为整数"),
        ({"count": 0}, "must be at least 1", "不得小于 1"),
        ({"count": 10}, "must be at most 9", "不得大于 9"),
        ({"share": 0}, "must be greater than 0", "须大于 0"),
        ({"share": 1}, "must be less than 1", "须小于 1"),
        ({"share": float("nan")}, "must be a finite number", "须为有限的数字"),
        ({"kind": "c"}, "must be one of 'a' or 'b'", "须为以下之一：'a' 或 'b'"),
        ({"parts": []}, "must have at least 1 items", "至少需要 1 项"),
        ({"parts": ["", "", ""]}, "must have at most 2 items", "最多 2 项"),
        ({"parts": 1}, "must be an array", "须为数组"),
        ({"what": 1}, "there is no such field", "没有此字段"),
        ({"odd": 2}, "it is even", "it is even"),
        ({"odd": 4}, "is not valid: Value error, it is four", "无效（Value error, it is four）"),
    ],
)
def test_each_fault_is_told_in_both_languages(value: dict[str, Any], en: str, zh: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Shape.model_validate(value)
    [fault] = caught.value.errors()
    assert (misfit(fault), render(misfit(fault), "zh")) == (en, zh)
