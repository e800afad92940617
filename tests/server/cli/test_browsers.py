"""Opening this machine's browser at the end of `quickstart` and of `serve --browser`."""

import stat
import webbrowser
from pathlib import Path

import pytest

from llmasos.errors import Invalid
from llmasos_server.cli import browsers, quickstart, serve

LINK = "http://localhost:8765/sign-in/link/0123456789abcdef_x"


def test_a_machine_without_windows_has_no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    """12-11: opens the browser when there is one."""
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(webbrowser, "get", object)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not browsers.has_browser()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert browsers.has_browser()

    def none() -> None:
        raise webbrowser.Error

    monkeypatch.setattr(webbrowser, "get", none)
    assert not browsers.has_browser()


def test_no_other_user_of_the_machine_sees_the_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """12-2: it signs in, so it is in no process's arguments, and in a file that its owner alone reads."""
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    (tmp_path / browsers.FILE_NAME).symlink_to(tmp_path / "elsewhere")
    file = browsers.open_privately(tmp_path, LINK)
    assert opened == [file.as_uri()]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert f"url={LINK}" in file.read_text(encoding="utf-8")
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(Invalid):
        browsers.open_privately(tmp_path, 'http://localhost/"><script>')


@pytest.mark.parametrize(
    ("interactive", "browser", "said", "started"),
    [(True, True, True, [True]), (True, True, False, []), (True, False, True, []), (False, True, True, [])],
)
def test_quickstart_offers_the_pages_to_a_person_with_a_browser(
    monkeypatch: pytest.MonkeyPatch, interactive: bool, browser: bool, said: bool, started: list[bool]
) -> None:
    """12-11: ends by offering `llmasos serve`."""
    calls: list[bool] = []

    def start(*, browser: bool) -> None:
        calls.append(browser)

    monkeypatch.setattr(quickstart, "is_interactive", lambda: interactive)
    monkeypatch.setattr(browsers, "has_browser", lambda: browser)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: said)
    monkeypatch.setattr(serve, "serve", start)
    quickstart._offer_pages()
    assert calls == started
