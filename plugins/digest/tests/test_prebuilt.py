"""The bundle in `prebuilt/` lets a machine without Node.js offer this app. It must be of this source."""

import hashlib
from pathlib import Path

from llmasos.bundles.reader import read_bundle

HERE = Path(__file__).resolve().parents[1]
CURE = "build it again: llmasos build plugins/digest -o plugins/digest/prebuilt, then sha256sum app.js"


def test_the_prebuilt_bundle_is_of_this_source():
    (path,) = (HERE / "prebuilt").glob("*.llmapp")
    bundle = read_bundle(path)
    for name in ("llmapp.toml", "icon.svg"):
        assert bundle.files[name] == (HERE / name).read_bytes(), CURE
    recorded = (HERE / "prebuilt" / "app.js.sha256").read_text().split()[0]
    assert hashlib.sha256((HERE / "app.js").read_bytes()).hexdigest() == recorded, CURE
