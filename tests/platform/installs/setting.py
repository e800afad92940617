"""A workspace with an installer, a fake catalog and a runtime that records calls."""

from pathlib import Path

from sqlmodel import select

from llmasos.bundles.testing import EMPTY_COMPONENT, MODEL_PERMISSION, manifest_text
from llmasos.database.engine import Database
from llmasos.installs import repository
from llmasos.installs.code import CodeStore
from llmasos.installs.current import installed_app
from llmasos.installs.doctor import check
from llmasos.installs.installer import Installer
from llmasos.installs.resolve import parse_requirement
from llmasos.installs.service import ConsentAnswers, InstallResult
from llmasos.installs.testing import NotingRuntime, Shelf
from llmasos.kernel.tables import AuditEntry
from llmasos.quotas.tables import Quota

YES = ConsentAnswers(agreed=True)
STORAGE = '[[permissions]]\ncapability = "storage"\nreason.en = "Remembers."\n'
HTTP = '[[permissions]]\ncapability = "http"\nhosts = ["https://a.com"]\noptional = true\nreason.en = "Reads."\n'


class Setting:
    """A host's database, code store and catalog, with a runtime that only records calls."""

    def __init__(self, home: Path, database: Database) -> None:
        self.home = home
        self.database = database
        (home / "shelf").mkdir()
        self.shelf = Shelf(home / "shelf")
        self.runtime = NotingRuntime()
        self.code = CodeStore.in_home(home)
        self.installer = Installer(self.database, self.shelf, self.code, lambda _kind: self.runtime, "0.1.0")

    def publish(self, version: str = "1.0.0", extra: str = MODEL_PERMISSION, app: str = "acme/hello") -> None:
        self.shelf.add(manifest_text(app, version, extra), EMPTY_COMPONENT)

    async def install(self, text: str = "acme/hello", answers: ConsentAnswers = YES) -> list[InstallResult]:
        planned = self.installer.plan_install("default", parse_requirement(text))
        return await self.installer.carry_out(planned, answers, "ann")

    async def upgrade(self, text: str = "acme/hello", answers: ConsentAnswers = YES) -> list[InstallResult]:
        planned = self.installer.plan_upgrade("default", parse_requirement(text))
        return await self.installer.carry_out(planned, answers, "ann")

    def states(self, app: str = "acme/hello") -> dict[str, str]:
        with self.database.read() as session:
            found = repository.installation(session, "default", app)
            return {r.version: r.state for r in repository.releases(session, found.id)} if found else {}

    def grants(self, app: str = "acme/hello") -> set[str]:
        with self.database.read() as session:
            return set(installed_app(session, "default", app).app.grants)

    def events(self) -> list[str]:
        with self.database.read() as session:
            return [entry.event for entry in session.exec(select(AuditEntry))]

    def daily_limits(self) -> list[int]:
        with self.database.read() as session:
            return [quota.limit for quota in session.exec(select(Quota))]

    def findings(self) -> list[str]:
        with self.database.read() as session:
            return [str(finding) for finding in check(session, self.home)]
