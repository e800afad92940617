"""The three wheels are the whole product: what is no Python module comes along in them too.

Its components are those that the quickstart of these tests has built, out of the stock: the wheel's own build took
110 s for them, and would make the same.
"""

import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from stock import Stock

ROOT = Path(__file__).parents[2]
# A build isolates its backend, which uv fetches.
pytestmark = [pytest.mark.model, pytest.mark.wheels, pytest.mark.timeout(1800)]


def names_in(folder: Path, distribution: str) -> tuple[zipfile.ZipFile, set[str]]:
    [path] = folder.glob(f"{distribution}-*.whl")
    wheel = zipfile.ZipFile(path)
    return wheel, set(wheel.namelist())


def sources(folder: str, pattern: str) -> set[str]:
    return {path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).glob(pattern) if path.is_file()}


@pytest.mark.skipif(shutil.which("uv") is None, reason="wheels are built by uv")
def test_the_wheels_hold_all_that_the_product_reads(
    newcomer: object, stock: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10-6: migrations, contract, templates, translations and finished bundles, for a machine without a checkout."""
    out = tmp_path / "dist"
    with stock.home(tmp_path / "home") as home:
        monkeypatch.setenv("LLMASOS_HOME", str(home))
        words = ["--quiet", "--wheel", "--all-packages", "--out-dir", str(out)]
        subprocess.run(["uv", "build", *words], cwd=ROOT, check=True)
    _, sdk = names_in(out, "llmasos_sdk")
    assert sdk >= sources("sdk/src", "llmasos_sdk/wit/*") | {"llmasos_sdk/py.typed"}
    assert sdk >= {f"llmasos_sdk/js/{name}" for name in sources("sdk/js", "src/**/*")}
    _, platform = names_in(out, "llmasos_platform")
    migrations = {f"llmasos/_migrations/{name}" for name in sources("migrations", "**/*.py")}
    assert len(migrations) > 5
    assert platform >= migrations
    assert platform >= sources("platform/src", "llmasos/authoring/templates/**/*")
    assert platform >= {f"llmasos/i18n/locales/zh/LC_MESSAGES/llmasos.{kind}" for kind in ("po", "mo")}
    wheel, llmasos = names_in(out, "llmasos")
    with wheel:
        index = json.loads(wheel.read("llmasos_marketplace/_first_party/index.json"))
    apps = {path.parent.name for path in (ROOT / "plugins").glob("*/llmapp.toml")}
    assert {name.removeprefix("llmasos/") for name in index} == apps
    assert llmasos >= {f"llmasos_marketplace/_first_party/{each['file']}" for each in index.values()}
    assert llmasos >= sources("marketplace/src", "llmasos_*/**/*.py")
