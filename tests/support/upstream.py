"""A provider with the OpenAI interface on loopback, every byte of which a test scripts, for the real litellm."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from llmasos.gateway.engine import Engine
from llmasos.gateway.gateway import Gateway
from llmasos.gateway.models import ModelEntry, Price
from llmasos.gateway.registry import ModelRegistry


@dataclass(frozen=True)
class Whole:
    """A JSON body, or the bytes of any other."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Events:
    """Server-sent events: each a JSON value, or a line as it is. The connection then closes, with [DONE] or without."""

    events: tuple[Any, ...]
    done: bool = True


@dataclass
class Upstream:
    """Returns its replies in order, repeats the last one, and records its requests."""

    base: str = ""
    replies: list[Whole | Events] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)

    def say(self, *replies: Whole | Events) -> None:
        self.replies = list(replies)

    def next(self, request: dict[str, Any]) -> Whole | Events:
        self.requests.append(request)
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    def entry(self, name: str = "remote", **fields: Any) -> ModelEntry:
        known: dict[str, Any] = {
            "litellm": "openai/some-model",
            "api_base": self.base,
            "price": Price(input=1_000_000, output=3_000_000),
            "retries": 0,
            "timeout_seconds": 20.0,
        }
        return ModelEntry(name=name, **{**known, **fields})

    def gateway(self, home: Path, *entries: ModelEntry) -> Gateway:
        return Gateway(ModelRegistry(home, extra=entries or (self.entry(),)), Engine({}))


@contextmanager
def serving() -> Generator[Upstream]:
    state = Upstream()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            reply = state.next({**body, "path": self.path})
            if isinstance(reply, Whole):
                data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                for name, value in {"content-type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                # litellm keeps a connection for later calls, and nothing would close it when its test ends.
                self.send_header("connection", "close")
                self.close_connection = True
                self.end_headers()
                self.wfile.write(data)
                return
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            self.close_connection = True
            try:
                for event in (*reply.events, *(["[DONE]"] if reply.done else [])):
                    text = event if isinstance(event, str) else json.dumps(event)
                    self.wfile.write(f"data: {text}\n\n".encode())
                    self.wfile.flush()
            except OSError:
                pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.base = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """One event of a streamed answer."""
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices, **fields}


def said(text: str) -> dict[str, Any]:
    return chunk({"role": "assistant", "content": text})


def usage(prompt: Any, completion: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": 0}


def answer(message: dict[str, Any] | None = None, finish: str | None = "stop", **fields: Any) -> Whole:
    """A whole answer."""
    choices = [
        {"index": 0, "message": {"role": "assistant", **(message or {"content": "ok"})}, "finish_reason": finish}
    ]
    known = {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices}
    return Whole({**known, "usage": usage(11, 4), **fields})


def tool_call(index: int | None, id_: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    """A piece of a streamed tool call."""
    piece: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {**piece, **({} if index is None else {"index": index}), **({} if id_ is None else {"id": id_})}
