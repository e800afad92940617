"""A component with many actions, each of which attacks or stresses a runner in one way. Built by the tests."""

# ruff: noqa: PTH123, SIM115, PTH208, PLW0603 -- it does on purpose what an app should not

import json
import os
import sys
import time

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import log, model, output, storage, types


class Handler(exports.Handler):
    def describe(self):
        return json.dumps([{"name": "echo"}])

    def call(self, action, input):  # noqa: A002 -- the contract's name
        return ACTIONS[action](input)


def sleep(seconds):
    time.sleep(float(seconds))
    return "1"


def say(text):
    print(json.loads(text))
    print("to stderr", file=sys.stderr)
    return "1"


def spin(_):
    while True:
        pass


def recurse(_):
    sys.setrecursionlimit(10**9)

    def deeper(n):
        return deeper(n + 1) + 1

    return str(deeper(0))


def grow(_):
    kept = []
    while True:
        kept.append(bytearray(1 << 20))


def large(length):
    return '"' + "x" * int(length) + '"'


def flood(count):
    for number in range(int(count)):
        print(f"line {number} " + "x" * 80)
    return "1"


def call_for_ever(_):
    while True:
        model.count_tokens("x")


def fail(text):
    raise ValueError(text)


def leave(code):
    os._exit(int(code))


def refuse(tag):
    case = {"not-found": types.Error_NotFound, "conflict": types.Error_Conflict, "quota": types.Error_Quota}[tag]
    raise Err(case("so it is"))


def every_function(_):
    output.chunk("a")
    output.progress(0.5, "half")
    log.write("info", "é")
    number = model.open("{}")
    parts = []
    while (part := model.read(number)) is not None:
        parts.append(part)
    model.close(number)
    got = storage.get("k")
    version = storage.put("k", "v", False)
    swapped = storage.compare_and_set("k", None, "w", True)
    deleted = storage.delete("k")
    keys = storage.keys("", "a", 10)
    return json.dumps([parts, got, version, swapped, deleted, keys, model.count_tokens("x"), model.embed("{}")])


def round_trip(text):
    return storage.get(text) or "null"


def huge_argument(length):
    try:
        return model.generate("x" * int(length))
    except Err as error:
        return json.dumps([type(error.value).__name__, error.value.value])


def nan(_):
    try:
        output.progress(float("nan"), "")
    except Err as error:
        return json.dumps(error.value.value)
    return "0"


def probe(_):
    seen = {"env": dict(os.environ), "argv": sys.argv[1:], "stdin": sys.stdin.read()}
    for name, attempt in {
        "open": lambda: open("/etc/passwd").read(),
        "list": lambda: os.listdir("/"),
        "write": lambda: open("/x", "w"),
    }.items():
        try:
            attempt()
            seen[name] = "worked"
        except OSError as error:
            seen[name] = type(error).__name__
    seen["time"] = time.time() > 1.7e9
    seen["random"] = os.urandom(16) != os.urandom(16)
    return json.dumps(seen)


counter = 0


def count(_):
    global counter
    counter += 1
    return str(counter)


ACTIONS = {
    "echo": lambda text: text, "sleep": sleep, "say": say, "spin": spin, "recurse": recurse, "grow": grow,
    "large": large, "flood": flood, "call_for_ever": call_for_ever, "fail": fail, "leave": leave, "refuse": refuse,
    "every_function": every_function, "round_trip": round_trip, "huge_argument": huge_argument, "nan": nan,
    "probe": probe, "count": count, "generate": model.generate, "not_json": lambda _: "{", "empty": lambda _: "",
}  # fmt: skip
