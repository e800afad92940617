"""Types of columns that SQLModel does not choose well by itself."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Dialect, Integer
from sqlalchemy.types import TypeDecorator, TypeEngine
from typing_extensions import override


class Int64(TypeDecorator[int]):
    """An integer of 64 bits: `INTEGER` on SQLite, `BIGINT` on PostgreSQL, whose `INTEGER` ends at 2,147,483,647."""

    impl = BigInteger
    cache_ok = True

    @override
    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Integer() if dialect.name == "sqlite" else BigInteger())
