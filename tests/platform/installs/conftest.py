"""A workspace that installs from a fake catalog."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.platform.installs.setting import Setting

from llmasos.database.engine import Database
from llmasos.kernel.audit import verify


@pytest.fixture
def setting(tmp_path: Path, database: Database) -> Iterator[Setting]:
    made = Setting(tmp_path, database)
    yield made
    assert made.findings() == []
    with made.database.read() as session:
        assert verify(session).intact
