"""`/app.webmanifest`, `/service-worker.js`, `/offline`: the pages as an app of a phone or computer.

The service worker keeps one page: that the server cannot be reached. Nothing that belongs to anybody is ever kept.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Final

from starlette.responses import Response

from llmasos_server.web import assets
from llmasos_server.web.page import Shown, pages

router = pages()

_ICONS: Final = (("icon-192.png", 192, "any"), ("icon-512.png", 512, "any"), ("icon-maskable-512.png", 512, "maskable"))
_OFFLINE: Final = "/offline"


@router.get("/app.webmanifest")
async def manifest() -> Response:
    """What a browser installs."""
    return Response(_manifest(), media_type="application/manifest+json")


@cache
def _manifest() -> str:
    icons = [
        {"src": assets.url(name), "sizes": f"{size}x{size}", "type": "image/png", "purpose": purpose}
        for name, size, purpose in _ICONS
    ]
    known = {"name": "LLMasOS", "short_name": "LLMasOS", "id": "/", "start_url": "/", "scope": "/"}
    looks = {"display": "standalone", "background_color": "#ffffff", "theme_color": "#4f46e5"}
    return json.dumps({**known, **looks, "icons": icons})


@router.get("/service-worker.js")
async def service_worker() -> Response:
    """The script that shows the offline page. Its text changes with what it keeps, so that browsers fetch it anew."""
    return Response(_service_worker(), media_type="text/javascript; charset=utf-8")


@cache
def _service_worker() -> str:
    kept = [_OFFLINE, *(assets.url(name) for name in ("app.css", "icons.svg", "logo.svg"))]
    return f"const KEPT = {json.dumps(kept)};\n{assets.content('service-worker.js').decode()}"


@router.get(_OFFLINE)
async def offline(view: Shown) -> Response:
    """That the server cannot be reached. It is fetched without cookies, and shows nobody's name."""
    return view.render("offline.html.jinja")
