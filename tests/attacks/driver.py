"""Runs one attack in this process, confined or not, and prints what it saw. Started as `python -I -S driver.py …`."""

import json
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    base = Path(__file__).resolve().parent
    sys.path.insert(0, str(base))
    mode, name, module, raw = sys.argv[1:5]
    from importlib import import_module

    from catalogue.attack import ATTACKS, Target

    from llmasos_runner.confinement import apply

    import_module(f"catalogue.{module}")
    target = Target(**json.loads(raw))
    answer = {"confinement": []}
    if mode != "plain":
        profile = {"profile": "native", "identity": "attacker", "read": [str(base)], "memory_bytes": 64 << 20}
        answer["confinement"] = apply({**profile, "namespaces": mode == "confined"})
    try:
        answer["effect"] = repr(ATTACKS[name](target))[:200]
        if answer["effect"] in ("None", "False", "0", "''", "[]", "b''"):
            raise AssertionError(f"nothing was seen: {answer.pop('effect')}")
    except BaseException as error:
        answer["error"] = f"{type(error).__name__}: {error}"[:300]
    os.write(1, json.dumps(answer).encode() + b"\n")
    os._exit(0)
