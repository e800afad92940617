"""The folder of bundles."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from llmasos.errors import NotFound
from llmasos_marketplace.catalog.store import BundleStore


def test_a_bundle_is_stored_once_under_the_hash_of_its_bytes(tmp_path: Path) -> None:
    store = BundleStore(tmp_path / "bundles")
    digest = store.put(b"bytes")
    assert digest == hashlib.sha256(b"bytes").hexdigest()
    before = store.path(digest).stat().st_mtime_ns
    assert store.put(b"bytes") == digest
    assert store.path(digest).stat().st_mtime_ns == before
    assert list(store.digests()) == [digest]
    assert store.is_sound(digest)


@pytest.mark.parametrize("digest", ["0" * 64, "../../etc/passwd", "", "A" * 64])
def test_a_missing_digest_is_not_found_and_no_digest_leaves_the_folder(tmp_path: Path, digest: str) -> None:
    with pytest.raises(NotFound, match="is not in the store"):
        BundleStore(tmp_path).path(digest)


def test_bytes_that_do_not_match_their_name_are_detected(tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    digest = store.put(b"bytes")
    store.path(digest).write_bytes(b"other")
    assert not store.is_sound(digest)
    store.put(b"bytesbytes")
    store.path(digest).write_bytes(b"byt")
    assert store.put(b"bytes") == digest  # a file of another length is replaced
    assert store.is_sound(digest)


def test_leftovers_of_an_interrupted_write_are_swept_once_they_are_old(tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    old, young = tmp_path / ".tmp-old", tmp_path / ".tmp-young"
    old.write_bytes(b"x")
    young.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)
    store.put(b"bytes")
    assert (old.exists(), young.exists()) == (False, True)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = BundleStore(tmp_path)

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.put(b"bytes")
    assert list(tmp_path.iterdir()) == []
