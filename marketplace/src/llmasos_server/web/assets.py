"""What the pages load: served from here, under a name that holds a hash of the contents, and kept for a year."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

from fastapi import APIRouter
from starlette.responses import Response

from llmasos.errors import NotFound

router = APIRouter(include_in_schema=False)

_FOLDER: Final = files("llmasos_server.web") / "static"
_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
}
_YEAR: Final = "public, max-age=31536000, immutable"


@cache
def content(name: str) -> bytes:
    """A file of `static/`."""
    return (_FOLDER / name).read_bytes()


@cache
def url(name: str) -> str:
    """The address of a file of `static/`."""
    stem, _dot, ending = name.rpartition(".")
    return f"/static/{stem}.{hashlib.sha256(content(name)).hexdigest()[:12]}.{ending}"


@cache
def _by_url() -> dict[str, str]:
    names = [entry.name for entry in _FOLDER.iterdir() if entry.name.rpartition(".")[2] in _TYPES]
    return {url(name): name for name in names}


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """A file that a page names."""
    known = _by_url().get(f"/static/{name}")
    if known is None:
        raise NotFound
    media_type = _TYPES[known.rpartition(".")[2]]
    return Response(content(known), media_type=media_type, headers={"cache-control": _YEAR})
