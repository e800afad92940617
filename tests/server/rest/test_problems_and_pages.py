"""Problem documents and cursors, without any route."""

import importlib
import pkgutil

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

import llmasos
import llmasos_marketplace
import llmasos_server
from llmasos.errors import BY_TAG, LlmasosError, QuotaExceeded
from llmasos_server.rest.paging import decode_cursor, encode_cursor
from llmasos_server.rest.problems import InvalidCursor, Problem, install_problem_handlers


def every_error(cls: type[LlmasosError] = LlmasosError) -> list[type[LlmasosError]]:
    return [cls, *(below for child in cls.__subclasses__() for below in every_error(child))]


@pytest.fixture
def client() -> httpx.AsyncClient:
    app = FastAPI()
    install_problem_handlers(app)

    @app.get("/quota")
    async def quota() -> None:
        raise QuotaExceeded

    @app.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError("secret detail")

    @app.get("/number")
    async def number(n: int) -> int:
        return n

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://host")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/quota", 429, "quota-exceeded"),
        ("GET", "/bug", 500, "internal"),
        ("GET", "/number", 422, "invalid"),
        ("GET", "/number?n=x", 422, "invalid"),
        ("GET", "/nowhere", 404, "not-found"),
        ("POST", "/quota", 405, "method-not-allowed"),
    ],
)
async def test_every_error_is_a_problem_document(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate(answer.json())
    assert (problem.status, problem.code) == (status, code)
    assert problem.instance == path.split("?", maxsplit=1)[0]
    assert "secret" not in problem.detail


async def test_a_method_not_allowed_names_those_that_are(client: httpx.AsyncClient) -> None:
    assert (await client.post("/quota")).headers["allow"] == "GET"


def test_each_code_belongs_to_one_error() -> None:
    for package in (llmasos, llmasos_marketplace, llmasos_server):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(("__main__", "_runner", "embedded.child")):
                importlib.import_module(module.name)
    made = [error for error in every_error() if not error.__name__.startswith(("_", "Status"))]
    codes = [error.code for error in made]
    assert len(set(codes)) == len(codes)
    assert set(BY_TAG.values()) <= set(made)


STORABLE = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")), st.integers(-(1 << 63), (1 << 63) - 1)
)


@given(st.lists(STORABLE, max_size=4))
def test_a_cursor_gives_back_what_it_was_made_of(key: list[str | int]) -> None:
    assert decode_cursor(encode_cursor(*key), *(type(part) for part in key)) == tuple(key)


@pytest.mark.parametrize("cursor", ["", "!", "bnVsbA", "eyJhIjoxfQ", "WzFd", "W" * 400, "ä", encode_cursor("a", "b")])
def test_a_foreign_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        decode_cursor(cursor, str, int)


@pytest.mark.parametrize("part", ["\0", "a\0b", "\ud800", 1 << 63, -(1 << 63) - 1, 10**30])
def test_a_cursor_that_no_database_can_compare_is_refused(part: str | int) -> None:
    """11-S17: such a part of a cursor was a 500."""
    with pytest.raises(InvalidCursor):
        decode_cursor(encode_cursor(part), type(part))
