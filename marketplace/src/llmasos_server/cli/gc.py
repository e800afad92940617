"""`gc`: free the room that nothing needs."""

from __future__ import annotations

from llmasos_server.cli.output import emit_json, options, say, tr


def gc() -> None:
    """Remove what no installed app needs: code and prepared code of other releases, kept builds, leftovers."""
    from llmasos.authoring.build import collect_builds
    from llmasos.authoring.javascript import collect_toolchains
    from llmasos.installs.collection import collect
    from llmasos_server.local import open_local

    with open_local() as local:
        home = local.settings.home
        freed = {
            "apps": collect(local.database, home, thoroughly=True),
            "builds": collect_builds(home / "builds", kept=0),
            "tools": collect_toolchains(home),
            "bundles": local.catalog.collect(),
        }
    if options().json:
        emit_json({"freed_bytes": freed})
        return
    total = sum(freed.values())
    say(tr("{megabytes:,.1f} MiB are free again.", megabytes=total / (1 << 20)) if total else tr("Nothing to remove."))
