"""`serve`: host, catalog and API in one process."""

from __future__ import annotations

import gc
from typing import Annotated

import typer

from llmasos_server.cli.output import emit_json, note, options, tr


def serve(
    host: Annotated[str, typer.Option(help=tr("The address to listen on."))] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help=tr("The port; 0 takes a free one."))] = 8765,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help=tr("A host name to serve besides those of loopback; * for any.")),
    ] = None,
    browser: Annotated[bool, typer.Option("--browser", help=tr("Open the pages in this machine's browser."))] = False,
) -> None:
    """Serve apps, catalog and API until Ctrl-C."""
    from llmasos.database.engine import Database
    from llmasos.database.schema import ensure_schema
    from llmasos.settings import Settings
    from llmasos_server import server
    from llmasos_server.accounts.sign_in import first_link
    from llmasos_server.cli.browsers import FILE_NAME, has_browser, open_privately
    from llmasos_server.rest.guards import is_loopback

    settings = Settings()
    # Bound first, so that a taken port is reported immediately, before anything is opened.
    listener = server.listen(host, port)
    with listener:
        address = f"[{host}]" if ":" in host else host
        port = listener.getsockname()[1]
        url, named = f"http://{address}:{port}", f"http://localhost:{port}"
        names = (*(allow_host or ()), *(() if is_loopback(host) else (host,)))

        def ready() -> None:
            if options().json:
                emit_json({"url": url})
                return
            note(tr("LLMasOS listens on {url}", url=url))
            # By name: passkeys belong to one, and an address is none.
            start = f"{named}/"
            if is_loopback(host) and link is not None:
                start = f"{named}/sign-in/link/{link.text}"
                note(tr("Open this once, within 15 minutes, to sign in: {url}", url=start))
            if browser and has_browser():
                open_privately(settings.home, start)
            note(tr("Programs need a token: llmasos tokens create. Then: LLMASOS_URL and LLMASOS_TOKEN. Ctrl-C stops."))

        # Entered now, so that an error while the host opens is one line and not a server's traceback.
        ensure_schema(settings.resolved_database_url, settings.home)
        with Database(settings.resolved_database_url) as database, database.write() as session:
            link = first_link(session)
        app = server.create_app(settings, hosts=names, warm=True)
        collect_as_a_server()
        try:
            server.serve(app, listener, ready)
        finally:
            (settings.home / FILE_NAME).unlink(missing_ok=True)
    if not options().json:
        note(tr("Stopped; everything is settled."))


def collect_as_a_server() -> None:
    """Collect garbage as Python does by default: a command's threshold would let a server's cycles pile up.

    What was imported stays as long as the process; the collector need not look through it again.
    """
    gc.freeze()
    gc.set_threshold(700, 10, 10)
