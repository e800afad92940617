"""Suggests what to use instead of what confinement refuses, by the failing module of the standard library."""

from __future__ import annotations

import errno
import traceback
from typing import Final

from llmasos_sdk.messages import Message, verbatim
from llmasos_sdk.messages import message as _

# An error may contain a text of any length; nobody reads more than this.
_MESSAGE_CHARACTERS: Final = 4000

_PROCESSES: Final = _("An app cannot start processes: use threads, or call another app by ctx.apps.")
_NETWORK: Final = _("An app has no sockets: use ctx.http, and name the servers in llmapp.toml.")
_FILES: Final = _("An app has no files of its own: use ctx.storage, or io.BytesIO and io.StringIO.")
_SHARED: Final = _("An app cannot share memory with other processes: use threads.")

# Parts of file names in a traceback, the more specific ones first.
_PLACES: Final = (
    ("/subprocess.py", _PROCESSES),
    ("/multiprocessing/shared_memory", _SHARED),
    ("/multiprocessing/", _PROCESSES),
    ("/concurrent/futures/process", _PROCESSES),
    ("/pty.py", _PROCESSES),
    ("/tempfile.py", _FILES),
    ("/shutil.py", _FILES),
    ("/socket.py", _NETWORK),
    ("/ssl.py", _NETWORK),
    ("/asyncio/", _NETWORK),
    ("/http/client", _NETWORK),
    ("/urllib/", _NETWORK),
    ("/sqlite3/", _FILES),
)
_ELSEWHERE: Final = _(
    "An app runs confined, without processes, sockets and files of its own: use threads, ctx.http and ctx.storage."
)
_REFUSED: Final = {errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOSYS}


def of(error: BaseException) -> Message | None:
    """What to use instead, if confinement is why it failed; else None."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    place = next((hint for part, hint in _PLACES if any(part in file for file in files)), None)
    if not isinstance(error, OSError):
        return None
    if error.errno in _REFUSED:
        # A file that was named, rather than a call that was refused.
        return place or (_FILES if error.filename else _ELSEWHERE)
    # Nothing to write to: tempfile looks for folders, and name lookups for a resolver.
    if error.errno == errno.ENOENT and place is _FILES:
        return place
    return place if place is _NETWORK else None


def described(error: BaseException) -> Message:
    """An error in one line, with what to use instead if that is known."""
    said = " ".join(str(error).split())[:_MESSAGE_CHARACTERS]
    line = f"{type(error).__name__}{': ' if said else ''}{said}"
    hint = of(error)
    return _("{error}. {hint}", error=line, hint=hint) if hint else verbatim(line)
