"""People in the default workspace, whose owner is the machine's own user."""

from collections.abc import Callable

import pytest
from argon2 import PasswordHasher

from llmasos.database.engine import Database
from llmasos.kernel.invocation import Principal
from llmasos_server.accounts import passwords, people
from llmasos_server.accounts.people import Role
from llmasos_server.accounts.tables import User

Join = Callable[..., Principal]


@pytest.fixture
def join(database: Database) -> Join:
    """Makes a member: `join("ann", Role.ADMIN)`, with the address ann@example.com."""

    def make(name: str, role: Role = Role.MEMBER, workspace: str = "default", password: str | None = None) -> Principal:
        with database.write() as session:
            user = session.get(User, name)
            if user is None:
                user = people.add_user(session, name.title(), f"{name}@example.com")
                user.password_hash = None if password is None else passwords.hash_of(password)
            people.add_member(session, workspace, user.id, role)
            return Principal(workspace, user.id)

    return make


@pytest.fixture(autouse=True)
def _quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2 is slow on purpose; the tests are about all else."""
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    passwords._nobodys.cache_clear()
