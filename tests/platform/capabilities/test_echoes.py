"""11-S8: echoes of a secret in responses."""

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmasos.capabilities.echoes import declared, hidden

SECRET = 'sk-A+b/c=d&"e é 12345'
ENCODED = {
    "plain": SECRET,
    "percent": quote(SECRET, safe=""),
    "percent in lower case": quote(SECRET, safe="").lower(),
    "form": quote_plus(SECRET),
    "hex": SECRET.encode().hex(),
    "HEX": SECRET.encode().hex().upper(),
    "reversed": SECRET[::-1],
    "upper case": SECRET.upper(),
    "JSON": json.dumps(SECRET)[1:-1],
    "HTML": html.escape(SECRET),
}


@pytest.mark.parametrize("encoding", list(ENCODED))
def test_the_usual_spellings_of_a_secret_are_replaced(encoding: str) -> None:
    echoed = f'{{"you sent": "{ENCODED[encoding]}"}}'
    assert hidden(echoed, [SECRET]) == '{"you sent": "[secret]"}'


@given(
    st.binary(max_size=9),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8),
    st.binary(max_size=9),
)
def test_base64_is_replaced_wherever_the_secret_stands_in_it(before: bytes, secret: str, after: bytes) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        assert "[secret]" in hidden(encode(before + secret.encode() + after).decode(), [secret])


def test_a_short_secret_does_not_tear_answers_apart() -> None:
    assert hidden("ABBA cab abc", ["abc"]) == "ABBA cab [secret]"


def test_of_declared_fields_an_app_gets_plain_values_alone() -> None:
    body = json.dumps({"id": 7, "echo": SECRET, "items": [{"name": "a", "all": {"deep": SECRET}}], "a/b": True})
    wanted = ("/id", "/items/0/name", "/items/0/all", "/missing", "/a~1b")
    assert json.loads(declared(body, wanted)) == {"/id": 7, "/items/0/name": "a", "/a~1b": True}
    assert declared("not JSON", wanted) == declared("[" * 100_000, wanted) == "{}"
