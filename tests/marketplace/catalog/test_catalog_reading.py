"""Reading the catalog: by the service, by the fast reader, and over HTTP."""

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llmasos.bundles.testing import make_bundle, manifest_text
from llmasos.errors import Conflict, NotFound
from llmasos_marketplace.catalog import reader
from llmasos_marketplace.catalog.service import Catalog
from llmasos_marketplace.catalog.testing import add_bundle, open_catalog
from llmasos_server.rest.catalog import router
from llmasos_server.rest.problems import install_problem_handlers


def text_of(app_id: str, version: str, name: str, summary: str, categories: str = "", zh: str = "") -> str:
    text = manifest_text(app_id, version).replace('en = "Hello"', f'en = "{name}"')
    text = text.replace('en = "Says hello."', f'en = "{summary}"' + (f'\nzh = "{zh}"' if zh else ""))
    return text.replace("[name]", f"categories = [{categories}]\n[name]")


APPS = [
    text_of("acme/translator", "1.0.0", "Translator", "Translates text.", '"language", "productivity"', "翻译文本。"),
    text_of("acme/translator", "1.10.0", "Translator", "Translates text.", '"language"', "翻译文本。"),
    text_of("acme/translator", "1.9.0", "Translator", "Translates text.", '"language"', "翻译文本。"),
    text_of("acme/translator", "2.0.0b1", "Translator Beta", "Translates text.", '"language"'),
    text_of("bob/notes", "0.1.0", "Notes", "Keeps notes; 100% local.", '"productivity"'),
    text_of("carol/trans", "1.0.0", "Trans", "A radio.", '"media"'),
]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("made")
    return [make_bundle(folder, text) for text in APPS]


@pytest.fixture
def empty(tmp_path: Path, database_url: str) -> Iterator[Catalog]:
    opened = open_catalog(tmp_path, database_url)
    yield opened
    opened.database.close()


@pytest.fixture
def catalog(empty: Catalog, bundles: list[Path]) -> Catalog:
    for bundle in bundles:
        add_bundle(empty, bundle)
    return empty


class Client:
    """Sends requests to an application without a socket."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def answer() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://catalog") as client:
                return await client.request(method, path, **options)

        return asyncio.run(answer())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.ask("GET", path, **options)

    def head(self, path: str) -> httpx.Response:
        return self.ask("HEAD", path)


@pytest.fixture
def client(catalog: Catalog) -> Client:
    app = FastAPI()
    app.state.catalog = catalog
    app.include_router(router)
    install_problem_handlers(app)
    return Client(app)


def test_releases_come_newest_first_by_version_and_not_by_text(catalog: Catalog) -> None:
    versions = [candidate.version for candidate in catalog.releases("acme/translator")]
    assert versions == ["2.0.0b1", "1.10.0", "1.9.0", "1.0.0"]
    assert catalog.releases("no/such") == []


def test_an_app_shows_its_newest_final_release(catalog: Catalog) -> None:
    shown = catalog.app("acme/translator")
    assert (shown.latest_version, shown.name_en, shown.summary_zh) == ("1.10.0", "Translator", "翻译文本。")


@pytest.mark.parametrize(("typed", "near"), [("acme/translatr", "acme/translator"), ("notes", "bob/notes")])
def test_a_mistaken_id_is_refused_with_the_nearest_one(catalog: Catalog, typed: str, near: str) -> None:
    with pytest.raises(NotFound, match=f"Did you mean {near}"):
        catalog.app(typed)


def test_yanking_hides_from_new_installs_and_unyanking_undoes_it(empty: Catalog, bundles: list[Path]) -> None:
    catalog = empty
    for bundle in bundles[:2]:
        add_bundle(catalog, bundle)
    assert catalog.yank("acme/translator", "1.10.0", "it was wrong")
    assert not catalog.yank("acme/translator", "1.10.0")
    assert [c.yanked for c in catalog.releases("acme/translator")] == [True, False]
    assert catalog.app("acme/translator").latest_version == "1.0.0"
    assert catalog.bundle(catalog.releases("acme/translator")[0].digest).exists()
    assert catalog.unyank("acme/translator", "1.10.0")
    assert catalog.app("acme/translator").latest_version == "1.10.0"
    with pytest.raises(NotFound, match="has no release 9"):
        catalog.yank("acme/translator", "9.0.0")


def test_a_quarantined_release_is_neither_yanked_nor_offered(empty: Catalog, bundles: list[Path]) -> None:
    catalog = empty
    add_bundle(catalog, bundles[0], state="quarantined")
    with pytest.raises(Conflict, match="quarantined"):
        catalog.yank("acme/translator", "1.0.0")
    assert reader.search(catalog.database.url, "translator", 10) == []


def found(catalog: Catalog, words: str) -> list[str]:
    return [row["id"] for row in reader.search(catalog.database.url, words, 50)]


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ("", ["acme/translator", "bob/notes", "carol/trans"]),
        ("trans", ["carol/trans", "acme/translator"]),  # the whole name before its beginning
        ("TRANSLATOR", ["acme/translator"]),
        ("翻译", ["acme/translator"]),
        ("language", ["acme/translator"]),
        ("notes local", ["bob/notes"]),
        ("notes radio", []),
        ("100%", ["bob/notes"]),
        ("%", ["bob/notes"]),
        ("_", []),
        ("!", []),
    ],
)
def test_search_finds_every_word_and_the_nearest_first(catalog: Catalog, words: str, ids: list[str]) -> None:
    assert found(catalog, words) == ids


@given(words=st.text(max_size=60))
@example(words="notes \0")
@example(words="\ud800")
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])  # only read
def test_no_words_break_the_search(catalog: Catalog, words: str) -> None:
    assert set(found(catalog, words)) <= {"acme/translator", "bob/notes", "carol/trans"}


def pages(client: Client, path: str, limit: int) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = client.get(path, params={"q": "", "limit": limit} | ({"cursor": cursor} if cursor else {})).json()
        items += page["items"]
        cursor = page["next"]
        if cursor is None:
            return items


@pytest.mark.parametrize(
    "path", ["/catalog/v1/apps", "/catalog/v1/search", "/catalog/v1/apps/acme/translator/releases"]
)
def test_pages_together_are_the_whole_list(client: Client, path: str) -> None:
    assert pages(client, path, 1) == pages(client, path, 2) == pages(client, path, 200)
    assert len(pages(client, path, 1)) in (3, 4)
    assert client.get(path, params={"q": "", "cursor": "nonsense"}).json()["code"] == "invalid-cursor"
    assert client.get(path, params={"q": "", "limit": 0}).status_code == 422


def test_apps_are_listed_by_category_and_publisher(client: Client) -> None:
    listed = client.get("/catalog/v1/apps", params={"category": "productivity"}).json()["items"]
    assert [item["id"] for item in listed] == ["bob/notes"]
    listed = client.get("/catalog/v1/apps", params={"publisher": "acme"}).json()["items"]
    assert [item["id"] for item in listed] == ["acme/translator"]
    assert {"name": "media", "apps": 1} in client.get("/catalog/v1/categories").json()
    assert client.get("/catalog/v1/publishers/bob").json()["apps"] == 1


def test_an_unchanged_resource_is_a_304(client: Client) -> None:
    for path in ("/catalog/v1/apps", "/catalog/v1/apps/bob/notes", "/catalog/v1/apps/bob/notes/releases/0.1.0"):
        first = client.get(path)
        again = client.get(path, headers={"if-none-match": first.headers["etag"]})
        assert (first.status_code, again.status_code, again.content) == (200, 304, b"")


def test_a_bundle_is_immutable_and_served_in_ranges(client: Client) -> None:
    detail = client.get("/catalog/v1/apps/bob/notes/releases/0.1.0").json()
    whole = client.get(detail["bundle"])
    assert hashlib.sha256(whole.content).hexdigest() == detail["digest"]
    assert whole.headers["etag"] == f'"{detail["digest"]}"'
    assert "immutable" in whole.headers["cache-control"]
    part = client.get(detail["bundle"], headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert client.get(detail["bundle"], headers={"range": "bytes=99999999-"}).status_code == 416
    assert client.get(detail["bundle"], headers={"if-none-match": whole.headers["etag"]}).status_code == 304
    assert client.head(detail["bundle"]).headers["content-length"] == str(len(whole.content))


@pytest.mark.parametrize(
    "path",
    [
        "apps/no/such",
        "apps/bob/notes/releases/9",
        "apps/bob/notes/releases/9/bundle",
        "publishers/nobody",
        "apps/x/y/z",
    ],
)
def test_a_missing_resource_is_a_problem_document(client: Client, path: str) -> None:
    answer = client.get(f"/catalog/v1/{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_openapi_names_every_route_and_its_problems(client: Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert len(paths) == 8
    for path, methods in paths.items():
        if "{" in path:
            assert "404" in methods["get"]["responses"], path
