"""11-S8: echoes of a secret in responses."""

import base64
import codecs
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
    "swapped case": SECRET.swapcase(),
    "rot13": codecs.encode(SECRET, "rot13"),
    "base32": base64.b32encode(SECRET.encode()).decode().rstrip("="),
    "each byte by percent": "".join(f"%{byte:02X}" for byte in SECRET.encode()),
    "each letter in C": "".join(f"\\x{ord(letter):02x}" for letter in SECRET),
    "each letter in JSON": "".join(f"\\u{ord(letter):04x}" for letter in SECRET),
    "each letter in HTML": "".join(f"&#{ord(letter)};" for letter in SECRET),
    "each letter in HTML, by hex": "".join(f"&#x{ord(letter):X};" for letter in SECRET),
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


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_declared_field_that_is_no_json_is_left_out(number: str) -> None:
    """11-S8, its kind: the app got a document that no strict parser reads."""
    assert declared(f'\ufeff{{"a": {number}, "b": 1}}', ["/a", "/b"]) == '{"/b": 1}'


def test_half_a_character_in_a_declared_field_is_replaced() -> None:
    """11-10, its kind."""
    assert declared('{"a": "x\\ud83d"}', ["/a"]) == '{"/a": "x?"}'
