"""Runs attacks in processes of their own, confined or not, and prints what each saw.

Started as `python -I -S driver.py`, with the words of one attack; or without words, and then it reads them from its
input, a line an attack, and forks a process for each: an interpreter's start takes longer than an attack.
"""

import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path

BASE = Path(__file__).resolve().parent
MODULES = ("files", "processes", "sockets", "kernel")


def attack(mode: str, name: str, module: str, raw: str) -> None:
    """Run one in this process, print what it saw, and end the process."""
    signal.alarm(60)
    import_module(f"catalogue.{module}")
    target = Target(**json.loads(raw))
    answer = {"confinement": []}
    if mode != "plain":
        profile = {"profile": "native", "identity": "attacker", "read": [str(BASE)], "memory_bytes": 64 << 20}
        answer["confinement"] = apply({**profile, "namespaces": mode == "confined"})
    try:
        answer["effect"] = repr(ATTACKS[name](target))[:200]
        if answer["effect"] in ("None", "False", "0", "''", "[]", "b''"):
            raise AssertionError(f"nothing was seen: {answer.pop('effect')}")
    except BaseException as error:
        answer["error"] = f"{type(error).__name__}: {error}"[:300]
    os.write(1, json.dumps(answer).encode() + b"\n")
    os._exit(0)


def serve() -> None:
    """Fork a process for each line, and print how it ended after what it printed."""
    for module in MODULES:
        import_module(f"catalogue.{module}")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            words = json.loads(line)
            os.open(f"{json.loads(words[3])['home']}/secret", os.O_RDONLY)  # left open, as a careless host would
            attack(*words)
        _, status = os.waitpid(child, 0)
        os.write(1, json.dumps({"ended": os.waitstatus_to_exitcode(status)}).encode() + b"\n")


if __name__ == "__main__":
    sys.path.insert(0, str(BASE))
    from catalogue.attack import ATTACKS, Target

    from llmasos_runner.confinement import apply

    if len(sys.argv) > 1:
        attack(*sys.argv[1:5])
    serve()
