"""What stands on the store's shelves, on both databases."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from llmasos.bundles.manifest import parse_manifest
from llmasos.bundles.testing import MODEL_PERMISSION, make_bundle, manifest_text
from llmasos.database.engine import utc_now
from llmasos.gateway.models import ModelEntry
from llmasos.installs import repository as installs
from llmasos.installs.tables import Installation
from llmasos_marketplace.catalog import shelves
from llmasos_marketplace.catalog.service import Catalog
from llmasos_marketplace.catalog.testing import add_bundle, open_catalog

LOCAL = ModelEntry(name="small", litellm="x/small", tier="fast", goes_to="local")
REMOTE = ModelEntry(name="large", litellm="x/large", tier="best", goes_to="acme")


@pytest.fixture
def catalog(database_url: str, tmp_path: Path) -> Iterator[Catalog]:
    catalog = open_catalog(tmp_path / "home", database_url)
    for day, (name, extra) in enumerate(
        (
            ("oldest", 'categories = ["writing"]'),
            ("fast", MODEL_PERMISSION),
            ("best", MODEL_PERMISSION.replace("fast", "best")),
            ("gone", ""),
        ),
        1,
    ):
        text = manifest_text(f"acme/{name}", "1.0.0", "" if name == "oldest" else extra)
        if name == "oldest":
            text = text.replace("[name]", f"{extra}\n[name]", 1)
        path = make_bundle(tmp_path / "bundles", text)
        state = "yanked" if name == "gone" else "available"
        add_bundle(catalog, path, state=state, at=datetime(2026, 1, day, tzinfo=UTC))
    yield catalog
    catalog.database.close()


def test_the_newest_come_first_and_what_cannot_be_installed_not_at_all(catalog: Catalog) -> None:
    with catalog.database.read() as session:
        assert shelves.newest(session, 9) == ["acme/best", "acme/fast", "acme/oldest"]
        assert shelves.newest(session, 1) == ["acme/best"]


def test_what_works_here_asks_no_model_that_is_elsewhere(catalog: Catalog) -> None:
    with catalog.database.read() as session:
        assert shelves.working_here(session, [LOCAL, REMOTE], 9) == ["acme/fast", "acme/oldest"]
        assert shelves.working_here(session, [], 9) == ["acme/oldest"]


def test_what_most_workspaces_installed_is_popular(catalog: Catalog) -> None:
    installed = {"acme/oldest": 2, "acme/fast": 1, "acme/gone": 3, "acme/nowhere": 1}
    with catalog.database.write() as session:
        for number in range(3):
            installs.ensure_workspace(session, f"w{number}")
            session.add_all(
                Installation(
                    id=f"{app}{number}",
                    workspace_id=f"w{number}",
                    app_id=app,
                    installed_by="ann",
                    installed_at=utc_now(),
                )
                for app, count in installed.items()
                if number < count
            )
    with catalog.database.read() as session:
        assert shelves.popular(session, 9) == ["acme/oldest", "acme/fast"]
        assert [(each.app_id, each.installs) for each in shelves.shown(session, ["acme/best", "acme/oldest"])] == [
            ("acme/best", 0),
            ("acme/oldest", 2),
        ]


def test_categories_are_counted_of_what_is_offered(catalog: Catalog) -> None:
    assert dict(catalog.categories()) == {"writing": 1}
    catalog.yank("acme/oldest", "1.0.0")
    assert dict(catalog.categories()) == {}


@pytest.mark.parametrize(
    ("permission", "works"),
    [
        ("", True),
        (MODEL_PERMISSION, True),
        (MODEL_PERMISSION.replace("fast", "best"), False),
        (MODEL_PERMISSION.replace('tiers = ["fast"]', 'models = ["small"]'), True),
        (MODEL_PERMISSION.replace("fast", "best").replace("reason", "optional = true\nreason"), True),
    ],
)
def test_an_app_works_with_the_models_that_it_may_ask(permission: str, works: bool) -> None:
    assert shelves.works_with(parse_manifest(manifest_text(extra=permission)), [LOCAL]) is works
