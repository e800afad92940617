"""A provider with given words behind the real litellm, a real server with the OpenAI
interface on loopback, and the embedded model."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llmasos.gateway.embedded import weights
from llmasos.gateway.embedded.local import LocalModels
from llmasos.gateway.engine import Engine
from llmasos.gateway.gateway import Gateway
from llmasos.gateway.models import ModelEntry, Price
from llmasos.gateway.registry import ModelRegistry
from llmasos.gateway.request import GenerateRequest
from llmasos.gateway.testing import ScriptedProvider, scripted_gateway


@pytest.fixture
def provider() -> ScriptedProvider:
    return ScriptedProvider()


@pytest.fixture
def gateway(tmp_path: Path, provider: ScriptedProvider) -> Iterator[Gateway]:
    with scripted_gateway(tmp_path, provider) as gateway:
        yield gateway


@pytest.fixture
def ask():
    def build(text: str = "hello", **fields: Any) -> GenerateRequest:
        return GenerateRequest.model_validate({"messages": [{"role": "user", "content": text}], **fields})

    return build


@dataclass
class OpenAIServer:
    """A server with scripted responses that records its requests."""

    base: str = ""
    failures: list[tuple[int, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    """(status, error, headers), one for each request, before the answers."""
    usage: bool = True
    parts: list[str] = field(default_factory=lambda: ["Good", " day"])
    delay_seconds: float = 0.0
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    broken_off: threading.Event = field(default_factory=threading.Event)

    def entry(self, **fields: Any) -> ModelEntry:
        known: dict[str, Any] = {
            "name": "remote",
            "litellm": "openai/some-model",
            "api_base": self.base,
            "price": Price(input=1_000_000, output=3_000_000),
            "retries": 0,
            "timeout_seconds": 20.0,
        }
        return ModelEntry(**{**known, **fields})

    def gateway(self, home: Path, *entries: ModelEntry) -> Gateway:
        return Gateway(ModelRegistry(home, extra=entries or (self.entry(),)), Engine({}))


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    state = OpenAIServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            state.requests.append(body)
            state.keys.append(self.headers["authorization"])
            if state.failures:
                status, error, headers = state.failures.pop(0)
                return self.answer(status, {"error": error}, headers)
            if self.path.endswith("/embeddings"):
                rows = [{"object": "embedding", "index": i, "embedding": [0.5, 0.5]} for i in range(len(body["input"]))]
                usage = {"prompt_tokens": 4, "total_tokens": 4}
                return self.answer(200, {"object": "list", "data": rows, "model": "m", "usage": usage})
            return self.stream() if body.get("stream") else self.whole()

        def whole(self) -> None:
            time.sleep(state.delay_seconds)
            message = {"role": "assistant", "content": "".join(state.parts)}
            value: dict[str, Any] = {
                "id": "c1",
                "object": "chat.completion",
                "created": 1,
                "model": "some-model",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            }
            if state.usage:
                value["usage"] = {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}
            self.answer(200, value)

        def stream(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            try:
                for part in state.parts:
                    self.event({"delta": {"content": part}, "finish_reason": None})
                    time.sleep(state.delay_seconds)
                self.event({"delta": {}, "finish_reason": "stop"})
                if state.usage:
                    self.event(None, {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15})
                self.wfile.write(b"data: [DONE]\n\n")
            except OSError:
                state.broken_off.set()
            self.close_connection = True

        def event(self, choice: dict[str, Any] | None, usage: dict[str, int] | None = None) -> None:
            choices = [{"index": 0, **choice}] if choice else []
            value = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
            self.wfile.write(b"data: " + json.dumps({**value, "usage": usage}).encode() + b"\n\n")
            self.wfile.flush()

        def answer(self, status: int, value: dict[str, Any], headers: dict[str, str] | None = None) -> None:
            body = json.dumps(value).encode()
            try:
                self.send_response(status)
                for name, text in {**(headers or {}), "content-type": "application/json"}.items():
                    self.send_header(name, text)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                state.broken_off.set()

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.base = f"http://127.0.0.1:{httpd.server_address[1]}/v1"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield state
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture(scope="module")
def models(stock, tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("home")
    stock.add_models(home, weights.SMOLLM2_WEIGHTS)
    return home / "models"


@pytest.fixture(scope="module")
def local(models: Path):
    registry = ModelRegistry(models.parent)
    local = LocalModels(models, registry.get)
    yield local
    local.close()
