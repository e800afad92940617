"""Usage, quotas, models and grants, page by page."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llmasos.quotas import service
from llmasos.quotas.meters import Meter, Scope, Window
from llmasos.quotas.service import QuotaName
from llmasos.quotas.tables import UsageDay
from llmasos_server.rest.paging import page_of
from llmasos_server.rest.problems import InvalidCursor

ADMIN = {"authorization": "Bearer admin"}


async def pages(served: Any, path: str, limit: int, **headers: str) -> AsyncIterator[list[dict[str, Any]]]:
    cursor: str | None = None
    while True:
        query = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        answer = await served.client.get(path, params=query, headers=headers)
        assert answer.status_code == 200, answer.text
        yield answer.json()["items"]
        cursor = answer.json()["next"]
        if cursor is None:
            return


async def test_usage_is_listed_in_pages_the_newest_day_first(served: Any) -> None:
    today = datetime.now(UTC).date()
    with served.host.database.write() as session:
        for back in range(3):
            for app in ("acme/other", "acme/tool"):
                for user in ("ann", "bob"):
                    names = {"workspace_id": "default", "user_id": user, "app_id": app, "model": "m"}
                    session.add(UsageDay(day=today - timedelta(days=back), calls=1, prompt_tokens=5, **names))
    listed = [page async for page in pages(served, "/api/v1/usage", 4)]
    assert [len(page) for page in listed] == [4, 2]
    keys = [(each["day"], each["app"]) for page in listed for each in page]
    assert keys == sorted(sorted(keys, key=lambda key: key[1]), key=lambda key: key[0], reverse=True)
    assert {each["calls"] for page in listed for each in page} == {1}
    whole = [each async for page in pages(served, "/api/v1/usage", 200, **ADMIN) for each in page]
    assert {each["calls"] for each in whole} == {2}
    bounded = {"authorization": "Bearer bounded"}
    reached = [each async for page in pages(served, "/api/v1/usage", 2, **bounded) for each in page]
    assert [each["app"] for each in reached] == ["acme/other"] * 3


async def test_quotas_are_listed_in_pages(served: Any) -> None:
    with served.host.database.write() as session:
        for number in range(5):
            name = QuotaName("default", Scope.APP, f"acme/app{number}", Meter.TOKENS, Window.DAY)
            service.set_quota(session, lambda event, detail: None, name, 100 + number)
    listed = [page async for page in pages(served, "/api/v1/quotas", 2)]
    assert [len(page) for page in listed] == [2, 2, 1]
    assert [each["limit"] for page in listed for each in page] == [100, 101, 102, 103, 104]


async def test_models_keep_their_order_over_pages(served: Any) -> None:
    whole = [each["name"] async for page in pages(served, "/api/v1/models", 200) for each in page]
    one_by_one = [each["name"] async for page in pages(served, "/api/v1/models", 1) for each in page]
    assert one_by_one == whole == list(served.host.gateway.registry.models)


@pytest.mark.parametrize("path", ["installations", "usage", "quotas", "models"])
async def test_a_cursor_of_another_list_is_refused(served: Any, path: str) -> None:
    answer = await served.client.get(f"/api/v1/{path}?cursor=bnVsbA")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-cursor")


def test_a_page_goes_on_where_the_last_ended_though_that_row_is_gone() -> None:
    first, cursor = page_of("dbca", lambda letter: (letter,), 2, None, str)
    assert first == ["a", "b"]
    assert page_of("dca", lambda letter: (letter,), 2, cursor, str) == (["c", "d"], None)
    with pytest.raises(InvalidCursor):
        page_of("", lambda letter: (letter,), 2, "x", str)
