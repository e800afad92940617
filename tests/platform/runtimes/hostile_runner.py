"""A hostile runner: it reports ready, waits for a call, and then misbehaves in the way that its argument names."""

import array
import json
import os
import signal
import socket
import struct
import sys
import time

connection = socket.socket(fileno=int(sys.argv[1]))


def read() -> dict:
    (length,) = struct.unpack(">I", connection.recv(4, socket.MSG_WAITALL))
    return json.loads(connection.recv(length, socket.MSG_WAITALL))


def raw(body: bytes) -> None:
    connection.sendall(struct.pack(">I", len(body)) + body)


def send(**message: object) -> None:
    raw(json.dumps(message, separators=(",", ":")).encode())


def done(call: dict, **more: object) -> None:
    send(**{"t": "done", "id": call["id"], "fuel": 0, "memory_bytes": 0, "log": "", "output": "1", **more})


def syscall(call: dict, seq: int = 1, **more: object) -> None:
    send(**{"t": "syscall", "id": call["id"], "seq": seq, "capability": "c", "function": "f", "arguments": [], **more})


def nest(call: dict) -> None:
    start = json.dumps({"t": "syscall", "id": call["id"], "seq": 1, "capability": "c", "function": "f"})[:-1]
    raw(start.encode().replace(b" ", b"") + b',"arguments":' + b"[" * 500_000 + b"]" * 500_000 + b"}")


def descriptors(call: dict) -> None:
    fds = array.array("i", [0] * 100)
    for _ in range(10):
        body = json.dumps({"t": "ready"}).encode()
        connection.sendmsg([struct.pack(">I", len(body))[:1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    os._exit(0)


def flood(call: dict) -> None:
    for seq in range(1, 10_000):
        syscall(call, seq)


def hungry(call: dict) -> None:
    """Make calls endlessly without reading a reply."""
    for seq in range(1, 3000):
        syscall(call, seq)
        time.sleep(0.002)
    time.sleep(60)


def trickle(call: dict) -> None:
    for byte in struct.pack(">I", 4_000_000) + b"{" * 1000:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def print_much(call: dict) -> None:
    for _ in range(5000):
        os.write(1, b"x" * 10_000)
    os.write(1, b"\nlast words\n")
    os._exit(9)


MISDEEDS = {
    "huge": lambda call: connection.sendall(struct.pack(">I", 2**32 - 1) + b"x"),
    "nest": nest,
    "nan": lambda call: raw(b'{"t":"done","id":"%s","fuel":NaN,"memory_bytes":0,"log":""}' % call["id"].encode()),
    "surrogate": lambda call: raw(
        b'{"t":"done","id":"%s","fuel":0,"memory_bytes":0,"log":"\\ud800"}' % call["id"].encode()
    ),
    "not_utf8": lambda call: raw(
        b'{"t":"done","id":"%s","fuel":0,"memory_bytes":0,"log":"\xff"}' % call["id"].encode()
    ),
    "unknown_field": lambda call: done(call, user="root"),
    "negative": lambda call: done(call, fuel=-1),
    "enormous": lambda call: done(call, fuel=2**70),
    "wrong_type": lambda call: done(call, fuel="1"),
    "no_json": lambda call: raw(b"hello"),
    "empty": lambda call: raw(b""),
    "array": lambda call: raw(b"[]"),
    "unknown_message": lambda call: send(t="grant", id=call["id"]),
    "ready_twice": lambda call: send(t="ready", pid=1, engine="", confinement=[]),
    "compiled": lambda call: send(t="compiled", imports=[], exports=[]),
    "other_id": lambda call: done({"id": "somebody else's"}),
    "other_call": lambda call: syscall({"id": "somebody else's"}),
    "done_twice": lambda call: (done(call), done(call)),
    "order": lambda call: syscall(call, 0),
    "flood": flood,
    "hungry": hungry,
    "deaf": lambda call: (syscall(call), time.sleep(60)),
    "nested_argument": lambda call: syscall(call, arguments=[{"a": 1}]),
    "descriptors": descriptors,
    "trickle": trickle,
    "silence": lambda call: time.sleep(60),
    "print": print_much,
    "segfault": lambda call: os.kill(os.getpid(), signal.SIGSEGV),
    "close": lambda call: (connection.close(), time.sleep(60)),
}

start = read()
if start["search_path"] == ["silent"]:
    time.sleep(60)
if start["search_path"] == ["dies"]:
    os.write(2, b"no such module\n")
    os._exit(3)
send(t="ready", pid=os.getpid(), engine="none", confinement=[])
calls = []
while True:
    message = read()
    if message["t"] == "call" and message["action"] != "wait":
        MISDEEDS[message["action"]](message)
