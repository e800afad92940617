"""The tests' own support: the stock, and how workers divide the files."""

from pathlib import Path

import pytest
from partition import TOGETHER, Partition
from stock import Stock


@pytest.fixture
def small(tmp_path: Path) -> Stock:
    return Stock(tmp_path / "stock")


def made(home: Path, name: str, content: str) -> Path:
    file = home / "compiled" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def test_what_one_home_got_is_in_the_next_from_the_start(small: Stock, tmp_path: Path) -> None:
    with small.home(tmp_path / "one") as home:
        made(home, "a.cwasm", "code")
        made(home, "a.lock", "")
        made(home, ".half", "")
        (home / "tools" / "jco").mkdir(parents=True)
        (home / "tools" / "jco" / "file").write_text("tool")
    with small.home(tmp_path / "two") as home:
        assert [path.name for path in (home / "compiled").iterdir()] == ["a.cwasm"]
        assert (home / "compiled" / "a.cwasm").read_text() == "code"
        assert (home / "tools" / "jco" / "file").read_text() == "tool"
        assert not (home / "models").exists()


def test_a_home_may_delete_what_it_got_and_the_stock_keeps_it(small: Stock, tmp_path: Path) -> None:
    with small.home(tmp_path / "one") as home:
        made(home, "a.cwasm", "code")
    with small.home(tmp_path / "two") as home:
        (home / "compiled" / "a.cwasm").unlink()
    with small.home(tmp_path / "three") as home:
        assert (home / "compiled" / "a.cwasm").read_text() == "code"


def test_what_a_failed_test_made_is_not_kept(small: Stock, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="failed"), small.home(tmp_path / "one") as home:
        made(home, "a.cwasm", "half")
        raise ValueError("failed")
    with small.home(tmp_path / "two") as home:
        assert not (home / "compiled").exists()


def test_sources_that_differ_have_a_stock_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import stock

    with Stock(tmp_path / "stock").home(tmp_path / "one") as home:
        made(home, "a.cwasm", "code")
    monkeypatch.setattr(stock, "MAKERS", ("sdk/src",))
    with Stock(tmp_path / "stock").home(tmp_path / "two") as home:
        assert not (home / "compiled").exists()


def test_a_file_stays_with_one_worker_and_so_do_those_that_share_a_quickstart_or_a_browser() -> None:
    split = Partition._split_scope
    scheduler = Partition.__new__(Partition)
    assert split(scheduler, "tests/a/test_b.py::test_c[d::e]") == "tests/a/test_b.py"
    assert {split(scheduler, f"{file}::test") for file in TOGETHER} == {TOGETHER[0]}
    assert {split(scheduler, f"tests/browser/test_{name}.py::test") for name in "ab"} == {"tests/browser/"}
    assert all(Path(__file__).parents[1].joinpath(file).is_file() for file in TOGETHER)
