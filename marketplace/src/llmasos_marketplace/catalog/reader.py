"""The queries of `list`, `search` and `show`, without SQLAlchemy.

Importing SQLModel takes 0.5 to 1.2 seconds, but these commands must finish in a fifth of a second; the standard
library's sqlite3 takes two milliseconds. So it reads a SQLite database with the SQL below, which PostgreSQL accepts
too: for any other database the same statements run through SQLAlchemy. The server uses the same search.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from llmasos.database.schema import check_revision, database_file, open_to_read, revision_of
from llmasos.errors import NotFound, Unavailable
from llmasos.i18n import _, from_text
from llmasos_marketplace.catalog import spelling
from llmasos_marketplace.catalog.names import normalise

Row = dict[str, Any]

_JSON_COLUMNS = frozenset({"categories", "manifest", "actions", "imports", "limits", "config", "scope"})


def is_ready(url: str) -> bool:
    """Whether the database has the schema of this code; False if it does not exist or must be migrated.

    Raises:
        SchemaNewer: A newer LLMasOS made it.
    """
    return check_revision(revision_of(url))


def is_empty(url: str) -> bool:
    """Whether the database does not exist or has no schema yet."""
    return revision_of(url) is None


def rows(url: str, sql: str, values: Mapping[str, object]) -> list[Row]:
    """Execute a statement and return its rows, with JSON columns decoded.

    Raises:
        Unavailable: The database cannot be read.
    """
    given = {name: queryable(value) if isinstance(value, str) else value for name, value in values.items()}
    file = database_file(url)
    if file is None:
        return [_decoded(row) for row in _by_sqlalchemy(url, sql, given)]
    try:
        with closing(open_to_read(file)) as connection:
            connection.row_factory = sqlite3.Row
            return [_decoded(dict(row)) for row in connection.execute(sql, given)]
    except sqlite3.DatabaseError as error:
        raise Unavailable(
            _("The database {file} cannot be read ({error}): run llmasos doctor.", file=file, error=error),
        ) from error


def queryable(text: str) -> str:
    """Replace what no stored text contains, NUL and lone surrogates, since databases refuse them, by U+FFFD."""
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _by_sqlalchemy(url: str, sql: str, values: Mapping[str, object]) -> list[Row]:
    from sqlalchemy import create_engine, text  # noqa: PLC0415
    from sqlalchemy.pool import NullPool  # noqa: PLC0415

    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(sql), dict(values)).mappings()]


def _decoded(row: Row) -> Row:
    return {
        key: json.loads(value) if key in _JSON_COLUMNS and isinstance(value, str) else value
        for key, value in row.items()
    }


_FIELDS = "id, name_en, name_zh, summary_en, summary_zh, categories, latest_version, updated_at"
_TEXTS = ("id", "name_en", "name_zh", "summary_en", "summary_zh", "CAST(categories AS TEXT)")
_OFFERED = """EXISTS (SELECT 1 FROM "release" r WHERE r.app_id = app.id AND r.state = 'available')"""


def search_statement(words: str, *, after: tuple[int, str] | None, limit: int) -> tuple[str, dict[str, object]]:
    """Build the statement that finds apps by words, and its values.

    Every word must occur in the id, the names, the summaries or the categories. The whole text as id or name ranks 0,
    as the beginning of a name 1, within a name or id 2, elsewhere 3.

    Args:
        words: The words of the search; none finds every app.
        after: Rank and id of the last app on the previous page.
        limit: The largest number of apps.
    """
    whole = " ".join(queryable(words).lower().split())
    values: dict[str, object] = {"whole": whole, "prefix": f"{_escaped(whole)}%", "within": f"%{_escaped(whole)}%"}
    conditions = [_OFFERED]
    for number, word in enumerate(whole.split()[:8]):
        values[f"word{number}"] = f"%{_escaped(word)}%"
        conditions.append("(" + " OR ".join(f"lower({field}) LIKE :word{number} ESCAPE '!'" for field in _TEXTS) + ")")
    rank = (
        "CASE WHEN id = :whole OR lower(name_en) = :whole OR name_zh = :whole THEN 0"
        " WHEN lower(name_en) LIKE :prefix ESCAPE '!' OR name_zh LIKE :prefix ESCAPE '!' THEN 1"
        " WHEN lower(name_en) LIKE :within ESCAPE '!' OR name_zh LIKE :within ESCAPE '!'"
        " OR id LIKE :within ESCAPE '!' THEN 2 ELSE 3 END"
    )
    values["limit"] = limit
    paging = ""
    if after is not None:
        paging = "WHERE rank > :after_rank OR (rank = :after_rank AND id > :after_id)"
        values |= {"after_rank": after[0], "after_id": after[1]}
    sql = (
        f"SELECT * FROM (SELECT {_FIELDS}, {rank} AS rank FROM app WHERE {' AND '.join(conditions)}) AS found "  # noqa: S608  (only the constants above)
        f"{paging} ORDER BY rank, id LIMIT :limit"
    )
    return sql, values


def no_such_app(app_id: str, known: Sequence[str]) -> NotFound:
    """The error for an app that is not in the catalog; it names the most similar one."""
    from difflib import get_close_matches  # noqa: PLC0415  (only for an error)

    wanted = normalise(app_id)
    # A name without a publisher means the app of that name.
    same_name = [other for other in known if other.partition("/")[2] == wanted]
    near = same_name or get_close_matches(wanted, known, n=1, cutoff=0.6)
    if near:
        return NotFound(
            _("There is no app {app!r} in the catalog. Did you mean {near}?", app=app_id, near=near[0]),
        )
    return NotFound(
        _("There is no app {app!r} in the catalog: see `llmasos search`.", app=app_id),
    )


# Far more apps than anyone pages through; a search without a match reads the texts of this many.
_MOST_TEXTS = 5000


def texts_statement() -> str:
    """The statement that reads the searched texts."""
    return f"SELECT {', '.join(_TEXTS)} FROM app WHERE {_OFFERED} ORDER BY id LIMIT {_MOST_TEXTS}"  # noqa: S608


def _escaped(word: str) -> str:
    return word.replace("!", "!!").replace("%", "!%").replace("_", "!_")


def search(url: str, words: str, limit: int) -> list[Row]:
    """Apps that match every word, the best first."""
    sql, values = search_statement(words, after=None, limit=limit)
    return rows(url, sql, values)


def respelled(url: str, words: str) -> str | None:
    """The most likely intended search, for one without a match; see `spelling.respelled`."""
    return spelling.respelled(words, (str(text) for row in rows(url, texts_statement(), {}) for text in row.values()))


def app(url: str, app_id: str) -> Row | None:
    """One app, with the texts of its newest release."""
    found = rows(url, f"SELECT {_FIELDS} FROM app WHERE id = :id", {"id": app_id})  # noqa: S608
    return found[0] if found else None


def app_ids(url: str) -> list[str]:
    """Every app's id, to suggest the one most similar to a mistyped one."""
    return [str(row["id"]) for row in rows(url, "SELECT id FROM app ORDER BY id", {})]


def releases(url: str, app_id: str) -> list[Row]:
    """Every release of an app, the newest published first."""
    sql = (
        "SELECT version, digest, size_bytes, runtime, manifest, actions, imports, readme, state, state_reason, "
        'published_by, published_at FROM "release" WHERE app_id = :id ORDER BY id DESC'
    )
    found = rows(url, sql, {"id": app_id})
    return [{**row, "state_reason": from_text(row["state_reason"])} for row in found]


def installations(url: str, workspace: str) -> list[Row]:
    """The installations of a workspace: the current release of each, and the one that waits for consent."""
    sql = """
        SELECT i.id, i.app_id, i.installed_by, i.installed_at, c.version, c.digest, c.runtime, c.manifest,
          (SELECT max(p.version) FROM installed_release p WHERE p.installation_id = i.id AND p.state = 'pending')
            AS pending_version
        FROM installation i LEFT JOIN installed_release c ON c.id = i.current_id
        WHERE i.workspace_id = :workspace ORDER BY i.app_id
    """
    return rows(url, sql, {"workspace": workspace})


def installed_actions(url: str, workspace: str, app_id: str) -> list[Row] | None:
    """The actions of the current release of an installed app; None if it is not installed."""
    sql = """
        SELECT c.actions FROM installation i JOIN installed_release c ON c.id = i.current_id
        WHERE i.workspace_id = :workspace AND i.app_id = :app
    """
    found = rows(url, sql, {"workspace": workspace, "app": app_id})
    if not found:
        return None
    return [action for action in found[0]["actions"] if not action["name"].startswith("@")]


def grants(url: str, workspace: str, app_ids: Sequence[str] = ()) -> list[Row]:
    """The grants of each capability of each current release."""
    sql = """
        SELECT i.app_id, c.version, g.capability, g.scope, g.revoked_at
        FROM installation i JOIN installed_release c ON c.id = i.current_id
        JOIN "grant" g ON g.installed_release_id = c.id
        WHERE i.workspace_id = :workspace ORDER BY i.app_id, g.capability
    """
    found = rows(url, sql, {"workspace": workspace})
    return [row for row in found if not app_ids or row["app_id"] in app_ids]
