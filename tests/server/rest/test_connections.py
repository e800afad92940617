"""The two connections to a host behave alike, also in failure."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmasos.connection import LocalConnection, RemoteConnection, error_of
from llmasos.errors import AppFailed, NotFound, Unavailable
from llmasos.kernel.invocation import Event, Principal


@pytest.fixture(params=["local", "remote"])
async def connection(request: pytest.FixtureRequest, served: Any) -> Any:
    if request.param == "local":
        yield LocalConnection(served.host, Principal())
        return
    remote = RemoteConnection(str(served.client.base_url), "all")
    yield remote
    await remote.close()


async def test_a_run_answers_and_shows_its_events(connection: Any) -> None:
    seen: list[Event] = []

    async def show(event: Event) -> None:
        seen.append(event)

    result = await connection.run("acme/tool", "count", {}, show)
    assert result.output == "three"
    assert result.usage.fuel == 1000
    assert result.notices == ("only to three",)
    assert [event.kind for event in seen] == ["chunk", "progress"] * 3 + ["notice"]


async def test_only_the_line_ends_of_the_format_end_a_line_of_it(connection: Any) -> None:
    """11-S17: U+2028 or U+0085 in a chunk ended `llmasos run` against a server."""
    chunks: list[str] = []

    async def keep(event: Event) -> None:
        chunks.append(event.text)

    result = await connection.run("acme/tool", "separators", {}, keep)
    assert result.output == "a\u2028b\x85c"
    assert chunks == [f"a{character}b" for character in "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\r\n"]


async def test_the_schema_of_an_input_is_told(connection: Any) -> None:
    schema = await connection.input_schema("acme/tool", "echo")
    assert schema["required"] == ["text"]
    assert schema["x-streaming"] is False


async def test_errors_keep_their_kind(connection: Any) -> None:
    with pytest.raises(AppFailed):
        await connection.run("acme/tool", "lie", {})
    with pytest.raises(NotFound, match="acme/none"):
        await connection.run("acme/none", "act", {})
    with pytest.raises(NotFound, match="acme/none"):
        await connection.input_schema("acme/none", "act")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"code": 1}'])
def test_an_answer_that_is_no_problem_document_is_told_as_such(body: bytes) -> None:
    assert isinstance(error_of(body, 502), Unavailable)


def test_importing_the_client_imports_no_host(tmp_path: Path) -> None:
    heavy = ("sqlalchemy", "pydantic", "fastapi", "litellm", "httpx")
    code = f"import sys, llmasos; print([name for name in {heavy!r} if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_a_program_that_simply_ends_leaves_its_host_in_order(tmp_path: Path) -> None:
    code = (
        "import llmasos\n"
        "from llmasos.errors import NotFound\n"
        "try:\n    llmasos.run('acme/none', 'act', text='a')\n"
        "except NotFound as error:\n    print(error.message)\n"
    )
    environment = {**os.environ, "LLMASOS_HOME": str(tmp_path), "LLMASOS_URL": ""}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "acme/none" in ended.stdout
