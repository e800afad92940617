"""Every router of the pages, in one list for the composition root."""

from __future__ import annotations

from llmasos_server.web import assets, home, signing_in

ROUTERS = (assets.router, signing_in.router, home.router)
