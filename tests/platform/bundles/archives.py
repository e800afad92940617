"""Bundles as bytes, and the reader's error for a bad one."""

import pytest

from llmasos.bundles.reader import bundle_of
from llmasos.bundles.testing import bundle_files
from llmasos.bundles.writer import pack
from llmasos.errors import BundleRejected

GOOD = pack(bundle_files())


def rejected(data: bytes) -> str:
    with pytest.raises(BundleRejected) as caught:
        bundle_of(data)
    assert "\n" not in caught.value.message
    return caught.value.message
