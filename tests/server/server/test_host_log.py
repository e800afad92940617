"""The host's own log, to which "the log says why" refers."""

from __future__ import annotations

import logging
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from llmasos_server.doctor import check_log
from llmasos_server.host_log import FILE_NAME, HomeLog, StderrLog, attached, logging_to_home, show_everything

logger = logging.getLogger("llmasos.somewhere")


def test_a_failure_is_in_the_homes_log_with_its_traceback_and_fields(tmp_path):
    """11-7: "its log says why", and there was no log."""
    with logging_to_home(lambda: tmp_path, lambda: False):
        try:
            raise ValueError("boom")
        except ValueError:
            logger.exception("model.generate failed for invocation %s", "i-1", extra={"plugin": "guard"})
        logger.info("not worth a line")
    text = (tmp_path / FILE_NAME).read_text()
    assert "ERROR llmasos.somewhere: model.generate failed for invocation i-1 plugin='guard'" in text
    assert "ValueError: boom" in text
    assert "not worth" not in text
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    assert str(tmp_path / FILE_NAME) in str(check_log(tmp_path).message)


def test_nothing_that_was_said_elsewhere_moves_a_terminal_or_fakes_a_line(tmp_path):
    """11-7 and S1: models and providers write what is logged."""
    with logging_to_home(lambda: tmp_path, lambda: False):
        logger.warning(
            "the provider said %s", "\x1b[2Jx\u202e\n2026-11-28 ERROR llmasos: all is lost", extra={"a": "\x1b[1m"}
        )
    lines = (tmp_path / FILE_NAME).read_text().splitlines()
    assert not any(character in "".join(lines) for character in "\x1b\u202e")
    assert [line[:2] for line in lines[1:]] == ["  "] * (len(lines) - 1)


def test_the_log_is_turned_over_and_old_ones_end(tmp_path):
    with logging_to_home(lambda: tmp_path, lambda: False):
        for _ in range(12):
            logger.warning("x" * (1 << 20))
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == [FILE_NAME, *(f"{FILE_NAME}.{number}" for number in (1, 2, 3))]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())


def test_a_home_that_cannot_be_written_ends_nothing(tmp_path, capfd):
    with logging_to_home(lambda: tmp_path / "missing", lambda: False):
        logger.error("lost")
    with logging_to_home(lambda: 1 / 0, lambda: False):
        logger.error("lost")
    assert capfd.readouterr() == ("", "")


def test_debug_shows_everything_and_a_server_shows_warnings_once(tmp_path, capfd):
    """11-7: `--debug` hid the log."""
    with logging_to_home(lambda: tmp_path, lambda: True):
        show_everything()
        logger.debug("a detail")
        with attached(StderrLog()):
            logger.warning("a warning")
    err = capfd.readouterr().err
    assert err.count("a detail") == 1
    assert err.count("a warning") == 1
    assert logging.getLogger("llmasos").level == logging.NOTSET


def test_handlers_do_not_outlive_their_block(tmp_path):
    before = list(logging.getLogger("llmasos").handlers)
    with logging_to_home(lambda: tmp_path, lambda: False):
        assert any(isinstance(each, HomeLog) for each in logging.getLogger("llmasos").handlers)
    assert logging.getLogger("llmasos").handlers == before


@pytest.mark.parametrize("debug", [False, True])
def test_a_command_keeps_the_hosts_log_out_of_its_own_lines(tmp_path: Path, debug):
    script = (
        "import logging, sys\n"
        "from llmasos_server.cli import shell\n"
        "from llmasos_server.cli.plugins import plugins\n"
        "import llmasos.plugins as loaded\n"
        "from types import SimpleNamespace\n"
        "bad = SimpleNamespace(name='bad', load=lambda: 1 / 0, dist=None)\n"
        "loaded.metadata.entry_points = lambda **_: [bad]\n"
        "from llmasos_server.cli import main\n"
        "main()\n"
    )
    words = ["plugins", "list", *(["--debug"] if debug else [])]
    environment = {"LLMASOS_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    done = subprocess.run(
        [sys.executable, "-c", script, *words], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert ("ZeroDivisionError" in done.stderr) is debug
    assert "ZeroDivisionError" in (tmp_path / FILE_NAME).read_text()
