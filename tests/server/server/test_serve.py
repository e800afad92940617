"""`llmasos serve` as a process: it starts, responds, reports a taken port, and ends in order."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

LLMASOS = [sys.executable, "-m", "llmasos_server.cli"]


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLMASOS_")}
    return {**kept, "LLMASOS_HOME": str(home), "LLMASOS_LOCALE": "en", **more}


def llmasos(home: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LLMASOS, *words], capture_output=True, text=True, env=environment(home, **more), timeout=120, check=False
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    process = subprocess.Popen(
        [*LLMASOS, "serve", "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
    )
    assert process.stdout is not None
    told = ""
    while not told.rstrip().endswith("}"):
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        told += line
    yield json.loads(told)["url"], process
    process.kill()
    process.communicate()


def test_a_server_answers_its_catalog_and_ends_on_sigterm(server: tuple[str, subprocess.Popen[str]]) -> None:
    url, process = server
    with httpx.Client(base_url=url) as client:
        assert client.get("/readyz").json() == {"status": "ok"}
        assert client.get("/catalog/v1/apps").json()["items"] == []
        assert client.get("/api/v1/invocations").status_code == 401
        assert client.get("/openapi.json").json()["info"]["title"] == "LLMasOS"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0


def test_each_request_is_one_line_on_stderr(server: tuple[str, subprocess.Popen[str]]) -> None:
    """11-31: `serve` had no access log."""
    url, process = server
    httpx.get(f"{url}/catalog/v1/apps?secret=1")
    httpx.get(f"{url}/nowhere%0a%1b[2J")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    lines = [line for line in err.splitlines() if '"GET ' in line]
    assert re.search(
        r'^\d{4}-\d\d-\d\d [\d:]{8} 127\.0\.0\.1 "GET /catalog/v1/apps" 200 \d+ ms [0-9a-f]{16}$', lines[0]
    )
    assert re.search(r'"GET /nowhere \\x1b\[2J" (401|404) \d+ ms [0-9a-f]{16}$', lines[1])
    assert len(lines) == 2


def test_a_token_made_by_command_opens_the_api_until_it_is_revoked(
    tmp_path: Path, server: tuple[str, subprocess.Popen[str]]
) -> None:
    made = json.loads(llmasos(tmp_path, "tokens", "create", "--json").stdout)
    headers = {"authorization": f"Bearer {made['token']}"}
    with httpx.Client(base_url=server[0], headers=headers) as client:
        assert client.get("/api/v1/invocations").json() == {"items": [], "next": None}
        ran = llmasos(tmp_path, "run", "acme/none", "act", LLMASOS_URL=server[0], LLMASOS_TOKEN=str(made["token"]))
        assert ran.returncode == 5
        assert "acme/none" in ran.stderr
        assert llmasos(tmp_path, "tokens", "revoke", made["id"]).returncode == 0
        assert client.get("/api/v1/invocations").status_code == 401
    listed = json.loads(llmasos(tmp_path, "tokens", "list", "--json").stdout)
    assert [(each["id"], each["state"]) for each in listed] == [(made["id"], "revoked")]


def test_a_taken_port_is_one_line_with_the_cure(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = llmasos(tmp_path, "serve", "--port", str(taken.getsockname()[1]))
    assert ended.returncode == 1
    assert "--port" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_server_that_is_not_there_is_one_line_with_the_cure(tmp_path: Path) -> None:
    ended = llmasos(tmp_path, "run", "acme/none", "act", LLMASOS_URL="http://127.0.0.1:9")
    assert ended.returncode == 1
    assert "llmasos serve" in ended.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["run", "acme/none", "act"], 5),
        (["run", "acme/none", "act", "--input", "{"], 1),
        (["run", "acme/none", "act", "--input", "[]"], 1),
        (["tokens", "create", "--scope", "everything"], 1),
        (["tokens", "revoke", "nothing"], 5),
    ],
)
def test_a_refusal_is_one_line_and_its_exit_code(tmp_path: Path, words: list[str], code: int) -> None:
    ended = llmasos(tmp_path, *words)
    assert ended.returncode == code
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert "Traceback" not in ended.stderr


def test_a_server_collects_garbage_as_python_does() -> None:
    """11-38: it inherited the threshold of a command's start, and its cycles piled up."""
    code = "import gc; gc.set_threshold(100_000); from llmasos_server.cli.serve import collect_as_a_server as c; c()"
    shown = f"{code}; print(gc.get_threshold(), gc.get_freeze_count() > 0)"
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    assert done.stdout == "(700, 10, 10) True\n"
