"""`/usage` over HTTP, and the charts that it draws."""

import csv
import io
import re
from datetime import date, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llmasos.database.engine import utc_now
from llmasos.quotas import service as quotas
from llmasos.quotas.meters import Meter, Scope, Window
from llmasos.quotas.service import QuotaName
from llmasos.quotas.tables import LedgerWindow, Quota, UsageDay
from llmasos.quotas.windows import window_start
from llmasos_server.accounts.people import Role
from llmasos_server.web.charts import ABOVE, BELOW, HEIGHT, SHOWN, WIDTH, stacked

Pages = Any
TODAY = date(2026, 11, 28)


def use(pages: Pages, user: str, **fields: Any) -> None:
    row = {
        "workspace_id": "default",
        "user_id": user,
        "app_id": "acme/hello",
        "model": "small",
        "day": utc_now().date(),
    }
    with pages.database.write() as session:
        session.add(UsageDay(**{**row, **fields}))


def limit(pages: Pages, scope: Scope, scope_id: str, most: int, used: int) -> None:
    def record(_event: str, _detail: Any) -> None:
        """Not what this is about."""

    with pages.database.write() as session:
        name = QuotaName("default", scope, scope_id, Meter.TOKENS, Window.DAY)
        row: Quota = quotas.set_quota(session, record, name, most)
        starts_at = window_start(Window.DAY, int(utc_now().timestamp()))
        session.add(LedgerWindow(quota_id=row.id or 0, starts_at=starts_at, limit=most, used=used))


def test_usage_is_shown_by_app_and_model_with_a_table_behind_it(pages: Pages) -> None:
    """12-8: charts with a table behind each."""
    user = pages.member("ann", Role.VIEWER)
    use(pages, user, prompt_tokens=1000, completion_tokens=234, calls=3, cost_micro_usd=1_500_000)
    use(pages, user, model="", calls=2)
    page = pages.signed_in("ann").get("/usage").text
    assert page.count('<svg class="chart"') == 2
    assert page.count("<table>") == 2
    for shown in ("acme/hello", "small", "1,234", "$1.5000"):
        assert shown in page
    runs = pages.signed_in("ann").get("/usage?of=runs&days=7").text
    assert runs.count('<svg class="chart"') == 1
    assert "1,234" not in runs.split('<h2 id="limits"')[1]


def test_nobody_sees_what_another_used(pages: Pages) -> None:
    """12-2: only an administrator sees everybody's, and only of the workspace."""
    ann = pages.member("ann", Role.MEMBER)
    pages.member("eve", Role.MEMBER)
    use(pages, ann, prompt_tokens=77_777)
    use(pages, "somebody", workspace_id="elsewhere", prompt_tokens=88_888)
    eve, owner = pages.signed_in("eve"), pages.owner()
    for path in ("/usage", "/usage?whose=everybody", "/usage/export?whose=everybody"):
        assert not re.search("77,?777", eve.get(path).text)
        assert not re.search("88,?888", owner.get(path).text)
    assert "77,777" in owner.get("/usage?whose=everybody").text
    assert "77777" in owner.get("/usage/export?whose=everybody").text
    assert "77777" not in owner.get("/usage/export").text


def test_limits_are_bars_of_what_applies_to_the_reader(pages: Pages) -> None:
    """12-8: quota bars."""
    ann, eve = pages.member("ann", Role.MEMBER), pages.member("eve", Role.MEMBER)
    limit(pages, Scope.WORKSPACE, "default", 1000, 850)
    limit(pages, Scope.USER, ann, 500, 500)
    limit(pages, Scope.USER, eve, 333, 0)
    limit(pages, Scope.APP, "acme/hello", 0, 0)
    page = pages.signed_in("ann").get("/usage").text
    assert '<progress max="1000" value="850" class="warn"' in page
    assert '<progress max="500" value="500" class="bad"' in page
    assert '<progress max="1" value="1" class="bad"' in page
    assert "333" not in page.split('<h2 id="limits"')[1].split("</section>")[0]
    assert eve not in page


def test_the_export_is_csv_that_no_spreadsheet_runs(pages: Pages) -> None:
    """12-6: CSV; 12: what a plugin or provider names itself."""
    user = pages.member("ann", Role.MEMBER)
    use(pages, user, model='=HYPERLINK("http://evil.example")', prompt_tokens=5)
    sent = pages.signed_in("ann").get("/usage/export")
    assert sent.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in sent.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(sent.content.decode("utf-8-sig"))))
    assert [(row["app"], row["prompt_tokens"]) for row in rows] == [("acme/hello", "5")]
    assert rows[0]["model"].startswith("'=")


def test_names_and_addresses_are_text_and_odd_ones_do_no_harm(pages: Pages) -> None:
    """12: XSS in names; unknown choices in the address."""
    user = pages.member("ann", Role.MEMBER)
    use(pages, user, model="<img src=x onerror=alert(1)>", prompt_tokens=5)
    ann = pages.signed_in("ann")
    assert "<img" not in ann.get("/usage").text
    for query in ("days=-1", "days=1e9", "of=<b>", "whose=eve", "days=7&days=30"):
        assert ann.get(f"/usage?{query}").status_code == 200
    assert ann.get(f"/usage?of={'x' * 1000}").status_code == 422
    assert pages.browser().get("/usage").status_code == 303


def test_a_new_user_is_told_what_to_do(pages: Pages) -> None:
    """12-6: every list has its empty state."""
    pages.member("ann", Role.MEMBER)
    page = pages.signed_in("ann").get("/usage").text
    assert "No limit is set here." in page
    assert page.count("Nothing in this period.") == 2


AMOUNTS = st.dictionaries(
    st.text(max_size=3), st.dictionaries(st.integers(0, 6), st.integers(0, 1 << 62), max_size=7), max_size=12
)


@settings(max_examples=25, deadline=None)
@given(AMOUNTS)
def test_columns_stay_in_the_picture_and_lose_nothing(drawn: dict[str, dict[int, int]]) -> None:
    """12-8: any amounts."""
    days = [TODAY + timedelta(days=each) for each in range(7)]
    amounts = {name: {days[at]: value for at, value in values.items()} for name, values in drawn.items()}
    chart = stacked(days, amounts)
    assert chart.total == sum(sum(each.values()) for each in amounts.values())
    assert sum(each.value for each in chart.columns) == chart.total
    assert len(chart.series) <= SHOWN + 1
    for it in chart.columns:
        assert 0 <= it.x <= it.x + it.width <= WIDTH
        assert ABOVE - 0.01 <= it.y <= it.y + it.height <= HEIGHT - BELOW + 0.01


def test_marks_are_round_numbers() -> None:
    """12-8."""
    chart = stacked([TODAY], {"a": {TODAY: 1234}})
    assert [value for _y, value in chart.marks] == [0, 1000, 2000]
