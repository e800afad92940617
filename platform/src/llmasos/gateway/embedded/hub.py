"""Fetches a file of weights from a hub: resumes interrupted downloads, and accepts the file only by its SHA-256."""

from __future__ import annotations

import time
from pathlib import Path

import httpx

from llmasos.errors import Invalid, ModelUnavailable
from llmasos.gateway.embedded.curated import CuratedModel
from llmasos.gateway.embedded.weights import Progress, check_digest, filling, put_in_place
from llmasos.i18n import _, verbatim

ATTEMPTS = 5


def fetch_file(model: CuratedModel, models: Path, address: str, progress: Progress | None = None) -> Path:
    """Fetch a model's file into the folder `models`, unless it exists. Blocks; resumes an interrupted download.

    Args:
        model: The model to fetch; a `size_bytes` of 0 is unknown.
        models: The folder of weights.
        address: The URL of the file.
        progress: Called with (fetched bytes, total bytes).

    Raises:
        ModelUnavailable: There is no network or no space, or the digest differs.
        Invalid: The address is not a URL.
    """
    place = models / model.name / f"{model.name}.gguf"
    if not address.startswith(("http://", "https://")):
        raise Invalid(
            _("{address!r} is no web address; give one that starts with https://.", address=address),
        )
    if place.is_file():
        check_digest(place, model.sha256)  # the same name may have been given to another file before
        return place
    with filling(models, model.name, model.size_bytes) as folder:
        if place.is_file():
            return place
        # Kept across attempts and processes; its name contains the digest, so that another file never continues it.
        partial = models / f".part-{model.name}-{model.sha256[:16]}"
        _download(address, partial, model, progress)
        try:
            check_digest(partial, model.sha256)
        except ModelUnavailable:
            partial.unlink()  # resuming it would not correct it
            raise
        ready = folder / "ready"
        ready.mkdir()
        partial.rename(ready / place.name)
        put_in_place(ready, place.parent)
    return place


def _download(address: str, partial: Path, model: CuratedModel, progress: Progress | None) -> None:
    said = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(min(0.25 * 2**attempt, 5.0))
        try:
            _download_rest(address, partial, model, progress)
            return
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            said = _("the server replied with {status}", status=status)
            if status < 500 and status != 429:
                break
        except httpx.HTTPError as error:
            said = verbatim(f"{type(error).__name__} {error}".strip())
    raise ModelUnavailable(
        _(
            "The model {model} could not be fetched from {host}: {said}. Check the network or "
            "LLMASOS_HUB_URL, and run the command again: it goes on where it stopped.",
            model=model.name,
            host=httpx.URL(address).host,
            said=said,
        ),
    )


def _download_rest(address: str, partial: Path, model: CuratedModel, progress: Progress | None) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"range": f"bytes={have}-", "accept-encoding": "identity"} if have else {"accept-encoding": "identity"}
    with httpx.stream("GET", address, headers=headers, follow_redirects=True, timeout=30.0) as response:
        if response.status_code == 416:
            return  # the file is complete; the digest is checked next
        response.raise_for_status()
        resumed = response.status_code == 206
        done = have if resumed else 0
        total = model.size_bytes or done + int(response.headers.get("content-length", 0))
        with partial.open("ab" if resumed else "wb") as file:
            # As it arrives: with a chunk size, a broken connection would lose the gathered part.
            for chunk in response.iter_raw():
                file.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, max(total, done))
                if model.size_bytes and done > model.size_bytes:
                    return  # larger than expected: do not fill the disk with it
