"""The pages over HTTP: the real server application, its host and database."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
import uvicorn
from argon2 import PasswordHasher
from fastapi import FastAPI
from typing_extensions import override

from llmasos.database.engine import Database
from llmasos.database.schema import ensure_schema
from llmasos.host import HostParts
from llmasos.settings import Settings
from llmasos_server.accounts import passwords, people, sign_in
from llmasos_server.accounts.people import Role
from llmasos_server.server import create_app


@pytest.fixture(autouse=True)
def _quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    passwords._nobodys.cache_clear()


class Forms(HTMLParser):
    """The forms of a page: their action, and the fields that a browser would send."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(html)

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append((values.get("action", ""), {}))
        elif tag == "input" and "name" in values and self.found:
            self.found[-1][1][values["name"]] = values.get("value", "")


@dataclass
class Browser:
    """A client that keeps cookies and fills in forms, and does not follow redirects."""

    client: httpx.Client
    last: httpx.Response = field(init=False)

    def get(self, path: str, **headers: str) -> httpx.Response:
        self.last = self.client.get(path, headers=headers, follow_redirects=False)
        return self.last

    def send(self, action: str, **fields: str) -> httpx.Response:
        """Send a form of the last page, with `fields` filled in."""
        for found, values in Forms(self.last.text).found:
            if found == action:
                self.last = self.post(action, **{**values, **fields})
                return self.last
        raise AssertionError(f"no form to {action} in {self.last.text}")

    def post(self, path: str, **fields: str) -> httpx.Response:
        origin = str(self.client.base_url).rstrip("/")
        return self.client.post(path, data=fields, headers={"origin": origin}, follow_redirects=False)


@dataclass
class Pages:
    """A server, and browsers for it."""

    url: str
    database: Database
    app: FastAPI
    clients: list[httpx.Client] = field(default_factory=list)

    def browser(self) -> Browser:
        """A browser with no cookies."""
        self.clients.append(httpx.Client(base_url=self.url, timeout=60))
        return Browser(self.clients[-1])

    def owner(self) -> Browser:
        """A browser in which the machine's own user is signed in."""
        browser = self.browser()
        with self.database.write() as session:
            link = sign_in.new_link(session, "local").text
        assert browser.post(f"/sign-in/link/{link}").status_code == 303
        return browser

    def member(self, name: str, role: Role, password: str = "correct horse battery") -> str:
        """Add a member with a password; returns the user's id."""
        with self.database.write() as session:
            user = people.add_user(session, name.title(), f"{name}@example.com")
            user.password_hash = passwords.hash_of(password)
            people.add_member(session, "default", user.id, role)
            return user.id

    def signed_in(self, name: str, password: str = "correct horse battery") -> Browser:
        """A browser in which a member is signed in."""
        browser = self.browser()
        browser.get("/sign-in")
        sent = browser.send("/sign-in", email=f"{name}@example.com", password=password)
        assert sent.status_code == 303, sent.text
        return browser


@pytest.fixture
def parts() -> HostParts | None:
    """Parts of the server's host besides its own; a module may override it."""
    return None


@pytest.fixture
def pages(tmp_path: Path, parts: HostParts | None) -> Iterator[Pages]:
    with serving(tmp_path, parts) as pages:
        yield pages


@contextmanager
def serving(home: Path, parts: HostParts | None = None) -> Iterator[Pages]:
    """A server, with parts of a host of the test's own."""
    settings = Settings(home=home)
    ensure_schema(settings.resolved_database_url, settings.home)
    app = create_app(settings, parts=parts)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        url = f"http://localhost:{listener.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=60) as client:
            # The socket listens already: this waits until the application has started.
            client.get("/readyz").raise_for_status()
        pages = Pages(url, app.state.host.database, app)
        yield pages
        for each in pages.clients:
            each.close()
        server.should_exit = True
        thread.join()
