"""The host's own log: `host.log` in the home, and standard error for `serve` and with `--debug`.

The file holds warnings and errors with their tracebacks, for troubleshooting. The first line creates it,
readable by its owner alone; it is rotated at 2 MiB, and three old ones are kept.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Final, TextIO

from typing_extensions import override

from llmasos.printable import printable

FILE_NAME: Final = "host.log"
MAX_BYTES: Final = 2 << 20
KEPT_FILES: Final = 3
# The logger that says what a command waits for.
WAITING: Final = "llmasos.database.write_gate"
PACKAGES: Final = ("llmasos", "llmasos_marketplace", "llmasos_server")
# A record's own attributes; the rest are the fields that were logged with it.
_OWN: Final = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"))


request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that a server handles now; it is in every line that is logged for it."""


class LogLine(logging.Formatter):
    """A line with its fields, in which foreign text cannot control a terminal or pretend to be another line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    @override
    def formatMessage(self, record: logging.LogRecord) -> str:
        request = request_id.get()
        fields = f" request={request}" if request else ""
        fields += "".join(f" {name}={value!r}" for name, value in vars(record).items() if name not in _OWN)
        return printable(super().formatMessage(record)).replace("\n", "\n  ") + printable(fields)

    @override
    def formatException(self, ei: object) -> str:
        return printable(super().formatException(ei))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class HomeLog(logging.Handler):
    """Writes to the file in the home, which the first record looks up, since most commands log nothing."""

    def __init__(self, find_home: Callable[[], Path]) -> None:
        super().__init__(logging.WARNING)
        self._find_home = find_home
        self._file: logging.Handler | None = None

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._file is None:
                self._file = _open_file(self._find_home() / FILE_NAME)
            self._file.emit(record)
        except Exception:  # an unwritable log must not end the operation that it reports on
            self._file = None

    @override
    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()


def _open_file(path: Path) -> logging.Handler:
    from logging.handlers import RotatingFileHandler  # noqa: PLC0415 - it imports sockets and threads

    class PrivateFile(RotatingFileHandler):
        @override
        def handleError(self, record: logging.LogRecord) -> None:
            if (error := sys.exception()) is not None:
                raise error  # to `HomeLog.emit`

        @override
        def _open(self):  # type: ignore[no-untyped-def]  # as the class above declares it
            return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8")

    file = PrivateFile(path, maxBytes=MAX_BYTES, backupCount=KEPT_FILES, encoding="utf-8")
    file.setFormatter(LogLine())
    return file


@contextmanager
def logging_to_home(find_home: Callable[[], Path], debug: Callable[[], bool]) -> Generator[None]:
    """Log warnings and errors to the home until the block ends; once `debug` returns true, show all on stderr too."""
    with attached(HomeLog(find_home)), attached(DebugLog(debug)):
        yield


def show_everything() -> None:
    """Pass every record to the handlers; `attached` undoes it."""
    for name in PACKAGES:
        logging.getLogger(name).setLevel(logging.DEBUG)


@contextmanager
def attached(handler: logging.Handler) -> Generator[None]:
    """Add a handler to the host's loggers until the block ends, and then restore their level."""
    loggers = [logging.getLogger(name) for name in PACKAGES]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
        handler.close()


class StderrLog(logging.StreamHandler[TextIO]):
    """Warnings and errors on standard error, for a server."""

    def __init__(self) -> None:
        super().__init__()
        self.setLevel(logging.WARNING)
        self.setFormatter(LogLine())


class DebugLog(logging.StreamHandler[TextIO]):
    """Everything on standard error while `debug` returns true, without what a server's log shows there anyway.

    Even without `debug` it shows why a command waits for another writer.
    """

    def __init__(self, debug: Callable[[], bool]) -> None:
        super().__init__()
        self._debug = debug
        self.setFormatter(LogLine())

    @override
    def emit(self, record: logging.LogRecord) -> None:
        handlers = logging.getLogger(PACKAGES[0]).handlers
        shown = record.levelno >= logging.WARNING and any(isinstance(each, StderrLog) for each in handlers)
        if (self._debug() or record.name == WAITING) and not shown:
            super().emit(record)
