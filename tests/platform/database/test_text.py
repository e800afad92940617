"""Text as both databases store it."""

from hypothesis import given
from hypothesis import strategies as st

from llmasos.database.engine import Database, utc_now
from llmasos.database.text import is_storable, storable

ANY = st.text(st.characters(exclude_categories=()))


@given(ANY, st.integers(1, 20))
def test_a_text_becomes_storable_and_stays_within_its_bound(text: str, most: int) -> None:
    assert is_storable(storable(text))
    assert len(storable(text)) == len(text)
    assert len(storable(text, most)) <= most
    if is_storable(text):
        assert storable(text) == text


def test_what_is_storable_comes_back_from_either_database(database: Database) -> None:
    """10-18: the same on both."""
    text = "".join(map(chr, (1, 9, 10, 0x7F, 0x85, 0x202E, 0xFFFD, 0x1F600))) + storable("\0 \ud800 \udfff")
    assert is_storable(text)
    database.write_queue.submit(
        lambda it: it.run("INSERT INTO workspace VALUES (?, ?, ?)", "w", text, it.instant(utc_now()))
    )
    database.write_queue.submit(lambda it: None).result()
    assert database.lookup("SELECT name FROM workspace WHERE name = ?", text) == (text,)
