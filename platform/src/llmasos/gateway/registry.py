"""The models of a home: those in `config.toml`, those added by command, and the embedded ones.

`models` has that order: an operator's models come before the built-in ones, so that the first model of a tier is
the operator's. A configured name hides the built-in model of that name.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, cast

from pydantic import ValidationError
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlmodel import select

from llmasos.database.engine import Database
from llmasos.errors import Conflict, Invalid, NotFound
from llmasos.gateway.checking import check_entry
from llmasos.gateway.models import BUILT_IN, ModelEntry, Price
from llmasos.gateway.tables import ModelRow
from llmasos.home import configured
from llmasos.i18n import Message, _, listing
from llmasos.printable import one_line
from llmasos.validation import misfit

# A server sees a command's changes within this time; reading the table and the file takes under a millisecond.
REREAD_SECONDS = 2.0


class ModelRegistry:
    """Reads models from every source, and stores the added ones."""

    def __init__(self, home: Path, database: Database | None = None, extra: tuple[ModelEntry, ...] = ()) -> None:
        """`extra` are models from the host's composition; they come before all others."""
        self._home = home
        self._database = database
        self._extra = extra
        self._models: Mapping[str, ModelEntry] = {}
        self._read_at = float("-inf")

    @property
    def models(self) -> Mapping[str, ModelEntry]:
        """Every model by name, in the order of preference.

        Raises:
            Invalid: `config.toml` holds a model that is not valid.
        """
        now = time.monotonic()
        if now - self._read_at > REREAD_SECONDS:
            self._models = self._read()
            self._read_at = now
        return self._models

    def get(self, name: str) -> ModelEntry:
        """Find a model by name.

        Raises:
            NotFound: There is none.
        """
        models = self.models
        if name in models:
            return models[name]
        near = get_close_matches(name, models, 1)
        hint = _("did you mean {near!r}?", near=near[0]) if near else _("see `llmasos models list`.")
        raise NotFound(_("There is no model {name!r}; {hint}", name=name, hint=hint))

    def add(self, entry: ModelEntry, *, replace: bool = False) -> None:
        """Store a model.

        Raises:
            Conflict: A model of that name was added or configured already.
            Invalid: A fallback is unknown.
        """
        known = self.models
        if entry.name in known and known[entry.name].source != "built-in" and not replace:
            raise Conflict(
                _("There is a model {entry!r} already; remove it first, or give --replace.", entry=entry.name),
            )
        if unknown := [name for name in entry.fallbacks if name not in known]:
            raise Invalid(
                _("The fallback {unknown!r} is no model; add it first.", unknown=unknown[0]),
            )
        stored = entry.model_dump(mode="json", exclude_defaults=True, exclude={"source"})
        with self._writable().write() as session:
            row = session.get(ModelRow, entry.name) or ModelRow(
                name=entry.name, entry=stored, created_at=datetime.now(UTC)
            )
            row.entry = stored
            session.add(row)
        self._read_at = float("-inf")

    def remove(self, name: str) -> None:
        """Remove an added model.

        Raises:
            NotFound: There is none of that name.
            Invalid: It is defined in `config.toml`, or built in.
        """
        entry = self.get(name)
        if entry.source == "config":
            raise Invalid(
                _("The model {name!r} is in {home}; remove it there.", name=name, home=self._home / "config.toml"),
            )
        if entry.source == "built-in":
            raise Invalid(_("The model {name!r} is built in and cannot be removed.", name=name))
        with self._writable().write() as session:
            row = session.get(ModelRow, name)
            if row is not None:
                session.delete(row)
        self._read_at = float("-inf")

    def _writable(self) -> Database:
        if self._database is None:
            raise Invalid(
                _("Models cannot be kept without a database; write them in config.toml."),
            )
        return self._database

    def _read(self) -> dict[str, ModelEntry]:
        models = {entry.name: entry for entry in self._extra}
        for entry in (*self._configured(), *self._added(), *BUILT_IN):
            models.setdefault(entry.name, entry)
        return models

    def _configured(self) -> list[ModelEntry]:
        file = self._home / "config.toml"
        where = str(file)
        return [
            check_entry(parse_entry(fields, where), where)
            for fields in _tables(configured(self._home).get("models", []), file)
        ]

    def _added(self) -> list[ModelEntry]:
        if self._database is None:
            return []
        try:
            with self._database.read() as session:
                rows = session.exec(select(ModelRow).order_by(cast(Any, ModelRow.created_at))).all()
        except (OperationalError, ProgrammingError):
            # A home that is not set up yet has no table; it has only the built-in models.
            return []
        return [parse_entry({**row.entry, "name": row.name, "source": "added"}, _("the database")) for row in rows]


def _tables(models: object, file: Path) -> list[dict[str, Any]]:
    """The fields of each model, written as `[[models]]` or `[models.NAME]`."""
    match models:
        case list():
            rows = cast(list[object], models)
        case dict():
            named = cast(dict[str, object], models)
            rows = [
                {"name": name, **cast(dict[str, object], fields)} if isinstance(fields, dict) else fields
                for name, fields in named.items()
            ]
        case _:
            rows = [models]
    if any(not isinstance(row, dict) for row in rows):
        raise Invalid(
            _("{file}: write each model as [[models]] or [models.NAME].", file=file),
        )
    return [{**cast(dict[str, Any], row), "source": "config"} for row in rows]


def parse_entry(fields: dict[str, Any], where: str) -> ModelEntry:
    """Make a model from its fields.

    Raises:
        Invalid: The message lists every fault with its field.
    """
    try:
        # The strict pydantic model wants tuples; TOML and JSON have lists.
        return ModelEntry.model_validate({key: _tupled(value) for key, value in fields.items()})
    except ValidationError as error:
        faults: list[Message] = []
        for fault in error.errors():
            field = ".".join(str(part) for part in fault["loc"]) or _("entry")
            near = _near_field(field) if fault["type"] == "extra_forbidden" else None
            said = _("{field}: {what}", field=field, what=misfit(fault))
            faults.append(_("{said} (did you mean {near!r}?)", said=said, near=near) if near else said)
        name = one_line(str(fields["name"]))[:128] if "name" in fields else _("without a name")
        raise Invalid(
            _(
                "The model {name} in {where} is not valid: {faults}",
                name=name,
                where=where,
                faults=listing(faults, "; "),
            )
        ) from error


# What other programs call them.
_OTHER_NAMES: Final = {
    "api_key": "key",
    "base_url": "api_base",
    "url": "api_base",
    "model": "litellm",
    "timeout": "timeout_seconds",
    "max_tokens": "max_output_tokens",
}


def _near_field(field: str) -> str | None:
    *above, last = field.split(".")
    known = Price.model_fields if above == ["price"] else ModelEntry.model_fields
    return _OTHER_NAMES.get(field) or next(iter(get_close_matches(last, known, 1)), None)


def _tupled(value: object) -> object:
    return tuple(cast(list[object], value)) if isinstance(value, list) else value
