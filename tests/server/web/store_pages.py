"""What the tests of the store's pages share."""

import re
import threading
from asyncio import to_thread
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from llmasos.bundles.testing import bundle_files, manifest_text
from llmasos.bundles.writer import write_bundle
from llmasos.installs import repository
from llmasos.installs.testing import NotingRuntime
from llmasos.runtimes.runtime import Program
from llmasos_marketplace.catalog.testing import add_bundle

HTTP = """
[[permissions]]
capability = "http"
hosts = ["*"]
reason.en = "Looks <b>things</b> up."
"""
STORAGE = """
[[permissions]]
capability = "storage"
reason.en = "Remembers."
"""


def publish(pages: Any, folder: Path, app_id: str, version: str = "1.0.0", **more: Any) -> None:
    """Put a release into the catalog; `more`: texts of the manifest that are replaced, files, state, at."""
    text = manifest_text(app_id, version, more.pop("extra", ""))
    for before, after in more.pop("texts", {}).items():
        assert before in text
        text = text.replace(before, after)
    path = folder / f"{app_id.replace('/', '-')}-{version}.llmapp"
    write_bundle({**bundle_files(text), **more.pop("files", {})}, path)
    add_bundle(pages.app.state.catalog, path, **more)


@dataclass
class WaitingRuntime(NotingRuntime):
    """Prepares an app as soon as the test lets it."""

    free: threading.Event = field(default_factory=threading.Event)

    async def prepare(self, program: Program, code: Path) -> None:
        await to_thread(self.free.wait, 60)
        await super().prepare(program, code)


def fields_of(page: str) -> dict[str, str]:
    """The hidden fields that protect the first form with an install or a setting."""
    return {
        name: found[1]
        for name in ("form_token", "bound")
        if (found := re.search(f'name="{name}" value="([0-9a-f]{{64}})"', page)) is not None
    }


def send(browser: Any, path: str, page: str, **fields: Any) -> httpx.Response:
    """Send a form, with lists for what is given several times."""
    data = {**fields_of(page), **fields}
    origin = str(browser.client.base_url).rstrip("/")
    sent: httpx.Response = browser.client.post(path, data=data, headers={"origin": origin}, follow_redirects=False)
    return sent


def install(browser: Any, app_id: str, change: str = "install", **fields: Any) -> str:
    """Agree to what an app asks for, and return the page that says how it ended."""
    path = f"/store/{app_id}/{change}"
    sent = send(browser, path, browser.get(path).text, **fields)
    assert sent.status_code == 303, sent.text
    return ended(browser, app_id)


def ended(browser: Any, app_id: str) -> str:
    """The page of an install, once it has ended."""
    page = ""
    for _attempt in range(6000):
        page = str(browser.get(f"/store/{app_id}/progress").text)
        if "data-poll" not in page:
            return page
    raise AssertionError(page)


def granted(pages: Any, app_id: str) -> set[str] | None:
    """What an app may do; None if it is not installed."""
    with pages.database.read() as session:
        found = repository.current(session, "default", app_id)
        return None if found is None else set(repository.active_grants(session, found[1]))


def version_of(pages: Any, app_id: str) -> str | None:
    """The release that runs."""
    with pages.database.read() as session:
        found = repository.current(session, "default", app_id)
        return None if found is None else found[1].version


def config_of(pages: Any, app_id: str) -> dict[str, Any]:
    """The settings of an installed app."""
    with pages.database.read() as session:
        return dict(repository.require_current(session, "default", app_id)[1].config)
