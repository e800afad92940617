"""The values of `-p`, read as their fields' types."""

import pytest

from llmasos.errors import Invalid
from llmasos_server.cli.run import parsed_parameters

SCHEMA = {
    "properties": {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "flag": {"type": "boolean"},
        "tags": {"type": "array"},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        "tone": {"enum": ["plain", "1"]},
    }
}


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("text=5", "5"),
        ("text=a=b", "a=b"),
        ("text=", ""),
        ("count=5", 5),
        ("flag=true", True),
        ('tags=["a"]', ["a"]),
        ("maybe=null", None),
        ("either=5", 5),
        ("either=five", "five"),
        ("tone=1", "1"),
        ("unknown=5", "5"),
    ],
)
def test_a_value_is_read_as_its_fields_type(given: str, value: object) -> None:
    assert list(parsed_parameters(SCHEMA, [given]).values()) == [value]


@pytest.mark.parametrize("given", ["text", "count=five", "flag=yes", "tags=a"])
def test_a_value_of_another_type_is_refused_with_its_field(given: str) -> None:
    with pytest.raises(Invalid, match=f"-p {given.partition('=')[0]}"):
        parsed_parameters(SCHEMA, [given])
