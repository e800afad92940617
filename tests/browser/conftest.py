"""The pages in Debian's Chromium: one server for all these tests, with first-party apps to install."""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from typing_extensions import override

from llmasos.authoring.build import build
from llmasos.database.engine import Database
from llmasos.gateway.testing import ScriptedProvider, ScriptedReply, scripted_entry, scripted_gateway
from llmasos.host import Host, HostParts
from llmasos.installs.resolve import Requirement
from llmasos.installs.service import ConsentAnswers
from llmasos.kernel.invocation import Principal
from llmasos.settings import Settings
from llmasos_marketplace.publishing.first_party import first_party_apps, first_party_folder
from llmasos_marketplace.publishing.seeding import Seeding
from llmasos_server.accounts import sign_in
from llmasos_server.local import Local
from llmasos_server.server import create_app

ROOT = Path(__file__).resolve().parents[2]
# Git ignores it. Copy `pages-*.png` to `.github/`, where the README shows them, if the pages change.
SCREENSHOTS = ROOT / "tests" / "browser" / "screenshots"
CHROMIUM = shutil.which("chromium")
WIDE = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 740}
APPS = ("llmasos/digest", "llmasos/storyteller", "llmasos/triage")
# The file of the home that has the ID of a run.
A_RUN = "a-run"
STORY = (
    "The keeper found the bottle at dawn, half buried below the steps. Inside was a page in a child's hand: "
    "*Is the light still on?* He read it twice. Then he climbed the hundred and nine stairs, wound the lamp, "
    "and for the first time in years he let it burn all day."
)


# litellm is imported for the first answer.
expect.set_options(timeout=20_000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")
            item.add_marker(pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: install Debian's chromium"))


class Narrator(ScriptedProvider):
    """Tells the same story word by word, and stops in the middle of it while `may_go_on` is not set."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        words = STORY.split(" ")
        self.say(ScriptedReply(tuple(f"{word} " for word in words), usage=(64, len(words))))

    @override
    async def _spoken(self, reply: ScriptedReply) -> AsyncIterator[str]:
        spoken = 0
        async for part in super()._spoken(reply):
            spoken += 1
            while spoken > 20 and not self.may_go_on.is_set():  # noqa: ASYNC110 - a test sets it, in another thread
                await asyncio.sleep(0.01)
            yield part


@dataclass
class Site:
    """A running server: its address, its database, and the model that its apps call."""

    url: str
    database: Database
    narrator: Narrator
    a_run: str
    """The ID of a run of triage that has ended."""

    def link(self) -> str:
        """The address of a new one-time link for the machine's own user."""
        with self.database.write() as session:
            return f"{self.url}/sign-in/link/{sign_in.new_link(session, 'local').text}"


async def _publish_and_install(home: Path) -> None:
    narrator = Narrator()
    narrator.say('{"label": "billing"}')
    async with Host.open(Settings(home=home), _with_model(home, narrator)) as host:
        local = Local.of(host)

        async def make(app: Path, out: Path) -> Path:
            return await build(app, out, describe=local.describe)

        apps = [app for app in first_party_apps(first_party_folder()) if app.app_id in APPS]
        seeding = Seeding(home, local.catalog, local.publishing, make)
        for seeded in await seeding.seed(apps, lambda _: None):
            assert seeded.outcome == "published", seeded
        plan = local.installer.plan_install(local.principal.workspace, Requirement("llmasos/triage"))
        await local.installer.carry_out(plan, ConsentAnswers(agreed=True), local.principal.user)
        run = await host.actions.run(
            Principal(), "llmasos/triage", "classify", {"message": "You charged my card twice!"}
        )
        (home / A_RUN).write_text(run.id)


def _with_model(home: Path, narrator: Narrator) -> HostParts:
    return HostParts(gateway=lambda *_: scripted_gateway(home, narrator, scripted_entry("narrator")))


@pytest.fixture(scope="session")
def home(stock: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose catalog has the apps, of which triage is installed and has run. Made once for the same sources."""
    sources = [path for app in APPS for path in (ROOT / "plugins" / app.split("/")[1]).glob("*.*")]
    code = [*(ROOT / "marketplace/src/llmasos_marketplace").rglob("*.py"), *(ROOT / "migrations").rglob("*.py")]
    code += [Path(__file__), *(ROOT / "platform/src/llmasos/installs").glob("*.py")]
    made = stock.folder(*(path.read_bytes() for path in sorted([*sources, *code])))
    home = tmp_path_factory.mktemp("browser") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMASOS_HOME", str(home))
        for name in ("LLMASOS_DATABASE_URL", "LLMASOS_URL", "LLMASOS_TOKEN", "LLMASOS_LOCALE"):
            patch.delenv(name, raising=False)
        if made.exists():
            shutil.copytree(made, home)
            stock.fill(home)
        else:
            with stock.home(home):
                asyncio.run(_publish_and_install(home))
            kept = shutil.ignore_patterns("builds", "compiled", "tools", "*.lock", "*-gate", "models")
            shutil.copytree(home, made, ignore=kept)
    return home


@pytest.fixture(scope="session")
def site(home: Path) -> Iterator[Site]:
    """The server, on loopback."""
    narrator = Narrator()
    app = create_app(Settings(home=home), parts=_with_model(home, narrator))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        # A passkey belongs to a name, not to an address.
        url = f"http://localhost:{listener.getsockname()[1]}"
        try:
            with httpx.Client(base_url=url, timeout=60) as client:
                client.get("/readyz").raise_for_status()
            yield Site(url, app.state.host.database, narrator, (home / A_RUN).read_text())
        finally:
            narrator.may_go_on.set()
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def chromium(site: Site) -> Iterator[Browser]:
    """The browser. Nothing else in this thread can use asyncio while it is open, so it closes with the file."""
    # As root there is no sandbox of its own; it sees no page but ours.
    arguments = ["--no-sandbox", "--disable-gpu", "--font-render-hinting=none"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@dataclass
class Reader:
    """A person's browser, and what went wrong in it."""

    page: Page
    site: Site
    faults: list[str] = field(default_factory=list)

    def open(self, path: str) -> Page:
        """Go to a page of the site."""
        response = self.page.goto(self.site.url + path)
        assert response is not None
        assert response.status < 500, path
        return self.page

    def picture(self, name: str, *, whole: bool = False) -> None:
        """Keep a screenshot."""
        SCREENSHOTS.mkdir(exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=whole, animations="disabled")


@contextmanager
def reading(chromium: Browser, site: Site, **options: Any) -> Iterator[Reader]:
    """A browser of its own, in which nothing may fail: no script, no request, nothing that the policy forbids."""
    options = {"locale": "en", "viewport": WIDE, "color_scheme": "light", "reduced_motion": "reduce", **options}
    context: BrowserContext = chromium.new_context(**options)
    context.set_default_timeout(15_000)
    try:
        reader = Reader(context.new_page(), site)
        context.on("weberror", lambda error: reader.faults.append(str(error.error)))
        context.on("console", lambda line: reader.faults.append(line.text) if line.type == "error" else None)
        context.on(
            "request",
            lambda sent: None if sent.url.startswith((site.url, "data:")) else reader.faults.append(sent.url),
        )
        yield reader
        assert reader.faults == []
    finally:
        context.close()


@pytest.fixture(scope="module")
def owner(chromium: Browser, site: Site) -> Any:
    """The cookies of the machine's own user."""
    with reading(chromium, site) as reader:
        reader.page.goto(site.link())
        reader.page.get_by_role("button", name="Sign in").click()
        reader.page.wait_for_url(f"{site.url}/")
        return reader.page.context.storage_state()


@pytest.fixture
def stranger(chromium: Browser, site: Site) -> Iterator[Reader]:
    """A browser in which nobody is signed in."""
    with reading(chromium, site) as reader:
        yield reader


@pytest.fixture
def reader(chromium: Browser, site: Site, owner: Any) -> Iterator[Reader]:
    """A browser in which the machine's own user is signed in."""
    with reading(chromium, site, storage_state=owner) as reader:
        yield reader
