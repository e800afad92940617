"""The database of this machine's home, for commands that need no host."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmasos.database.engine import Database


@contextmanager
def opened_database() -> Generator[Database]:
    """The database, made or brought up to date if it must be.

    Raises:
        Unavailable: It cannot be read or written.
    """
    from llmasos.database.engine import Database
    from llmasos.database.schema import ensure_schema
    from llmasos.home import state_home_and_database_url

    home, url = state_home_and_database_url()
    ensure_schema(url, home)
    with Database(url) as database:
        yield database
