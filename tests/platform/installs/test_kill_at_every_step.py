import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kill_at_every_step.py")


@pytest.mark.skipif(sys.platform == "win32", reason="it forks")
@pytest.mark.parametrize("change", ["install", "upgrade", "wait", "rollback", "uninstall"])
def test_a_change_killed_at_any_step_is_whole_or_not_there(change: str, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(tmp_path), change]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert int(ended.stdout) > 20
