"""The bundles in `plugins/*/prebuilt` let a machine without Node.js offer those apps. They must be of the sources."""

from pathlib import Path

import pytest

from llmasos.authoring import javascript
from llmasos.authoring.build import digest_of, stage
from llmasos.authoring.project import open_project
from llmasos.bundles.reader import read_bundle

ROOT = Path(__file__).parents[3]
PREBUILT = sorted(ROOT.glob("plugins/*/prebuilt"))
BUILT_BY = f"jco {javascript.toolchain_digest()}"
CURE = "build it again: uv run .ci/prebuild"


def test_there_is_a_prebuilt_bundle_of_each_app_that_needs_nodejs() -> None:
    needed = {
        manifest.parent / "prebuilt"
        for manifest in ROOT.glob("plugins/*/llmapp.toml")
        if Path(open_project(manifest.parent).manifest.runtime.source or "").suffix in javascript.SUFFIXES
    }
    assert needed
    assert needed == set(PREBUILT)


@pytest.mark.parametrize("prebuilt", PREBUILT, ids=lambda path: path.parent.name)
async def test_a_prebuilt_bundle_is_of_the_sources_and_the_sdk_as_they_are(prebuilt: Path, tmp_path: Path) -> None:
    app = prebuilt.parent
    (path,) = prebuilt.glob("*.llmapp")
    bundle = read_bundle(path)
    kept = [name for name in bundle.files if (app / name).is_file()]
    assert {"llmapp.toml", "README.md"} <= set(kept)
    for name in kept:
        assert bundle.files[name] == (app / name).read_bytes(), CURE
    assert (prebuilt / ".built-from").read_text().strip() == await stage(open_project(app), tmp_path), CURE


@pytest.mark.parametrize("changed", ["sdk/guest.js", "sdk/contract.js", "src/app.js", "wit/llmasos.wit", "entry.js"])
async def test_a_change_of_the_sdk_makes_a_prebuilt_bundle_stale(changed: str, tmp_path: Path) -> None:
    before = await stage(open_project(ROOT / "plugins" / "digest"), tmp_path)
    assert digest_of(tmp_path, BUILT_BY) == before
    with (tmp_path / changed).open("a") as file:
        file.write(" ")
    assert digest_of(tmp_path, BUILT_BY) != before
