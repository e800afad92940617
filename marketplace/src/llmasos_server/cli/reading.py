"""`search`, `show`, `list`, `grants show`: fast reading commands; see `catalog/reader.py`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from llmasos.errors import NotFound
from llmasos.home import WORKSPACE, state_home_and_database_url
from llmasos.i18n import _, render
from llmasos.printable import one_line
from llmasos_marketplace.catalog import reader
from llmasos_server.cli.completion import catalog_apps
from llmasos_server.cli.inputs import say_inputs
from llmasos_server.cli.output import emit_json, in_locale, local_text, locale, note, options, say, say_table, tr


def database() -> str | None:
    """The URL of the database, migrated if it is older; None if there is no database yet.

    Raises:
        SchemaNewer: It is of a newer LLMasOS.
        Unavailable: It cannot be read.
    """
    home, url = state_home_and_database_url()
    if reader.is_ready(url):
        return url
    if reader.is_empty(url):
        return None
    from llmasos.database.schema import ensure_schema

    ensure_schema(url, home)
    return url


def search(
    text: Annotated[list[str] | None, typer.Argument(help=tr("Words; none lists every app."))] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help=tr("How many apps at most."))] = 50,
) -> None:
    """Search the catalog: every word must stand in an app's id, name, summary or categories."""
    words = " ".join(text or [])
    url = database()
    found = reader.search(url, words, limit) if url else []
    meant = reader.respelled(url, words) if url and words and not found else None
    if url and meant:
        found = reader.search(url, meant, limit)
        note(tr("No app matches {words!r}. These match {meant!r}:", words=words, meant=meant))
    if options().json:
        emit_json({"items": [_app_json(row) for row in found]})
    elif found:
        say_table(
            [(row["id"], row["latest_version"], in_locale(row, "summary")) for row in found],
            (tr("APP"), tr("VERSION"), tr("SUMMARY")),
        )
    elif words:
        say(tr("No app matches {words!r}. `llmasos search` lists all.", words=words))
    else:
        say(tr("The catalog is empty: `llmasos quickstart` fills it."))


def _app_json(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": {"en": row["name_en"], "zh": row["name_zh"] or None},
        "summary": {"en": row["summary_en"], "zh": row["summary_zh"] or None},
        "categories": row["categories"],
        "latest_version": row["latest_version"],
    }


def show(
    app: Annotated[
        str,
        typer.Argument(autocompletion=catalog_apps, help=tr("publisher/name, or publisher/name@version.")),
    ],
) -> None:
    """Show an app and its releases; with @version, that release."""
    from packaging.version import Version

    app_id, _, version = app.partition("@")
    url = database()
    row = reader.app(url, app_id) if url else None
    if url is None or row is None:
        raise reader.no_such_app(app_id, reader.app_ids(url) if url else [])
    releases = sorted(reader.releases(url, app_id), key=lambda each: Version(each["version"]), reverse=True)
    shown = next((each for each in releases if each["version"] == (version or row["latest_version"])), None)
    if shown is None:
        from llmasos.installs.resolve import no_such_release

        raise no_such_release(app_id, version, [each["version"] for each in releases])
    if options().json:
        listed = [{key: each[key] for key in ("version", "state", "state_reason", "digest")} for each in releases]
        emit_json(_app_json(row) | {"release": shown, "releases": listed})
    else:
        _say_app(row, shown, releases)


def _say_app(row: dict[str, Any], shown: dict[str, Any], releases: list[dict[str, Any]]) -> None:
    manifest = shown["manifest"]
    say(f"{row['id']} {shown['version']}  {in_locale(row, 'name')}")
    say(in_locale(row, "summary"))
    say()
    say(f"{tr('Runs as')}: {shown['runtime']}   {tr('Licence')}: {one_line(manifest['license'])}")
    say(f"{tr('Categories')}: {', '.join(row['categories']) or '-'}")
    say(f"{tr('State')}: {_state(shown)}   SHA-256: {shown['digest']}")
    say()
    say(tr("It asks for:"))
    for permission in manifest["permissions"]:
        optional = tr(" (optional)") if permission["optional"] else ""
        say(f"  {permission['capability']}{optional}: {local_text(permission['reason'])}")
    if not manifest["permissions"]:
        say(tr("  nothing"))
    say(tr("It does:"))
    for action in shown["actions"]:
        say(f"  {action['name']}: {local_text(action.get('title'))}")
        say_inputs(action["input_schema"], "      ")
    say(tr("Releases:"))
    for each in releases:
        say(f"  {each['version']}  {_state(each)}")


def _state(release: dict[str, Any]) -> str:
    words = {
        "available": tr("available"),
        "yanked": tr("yanked"),
        "quarantined": tr("quarantined"),
    }
    reason = f" ({one_line(render(release['state_reason'], locale()))})" if release["state_reason"] else ""
    return words[release["state"]] + reason


def list_() -> None:
    """List what is installed."""
    url = database()
    found = reader.installations(url, WORKSPACE) if url else []
    if options().json:
        emit_json(
            {
                "items": [
                    {
                        "id": row["id"],
                        "app": row["app_id"],
                        "version": row["version"],
                        "runtime": row["runtime"],
                        "digest": row["digest"],
                        "name": row["manifest"]["name"],
                        "waiting": row["pending_version"],
                        "installed_at": row["installed_at"],
                    }
                    for row in found
                ]
            }
        )
    elif found:
        say_table(
            [(row["app_id"], row["version"] + _waiting(row), local_text(row["manifest"]["name"])) for row in found],
            (tr("APP"), tr("VERSION"), tr("NAME")),
        )
    else:
        say(tr("Nothing is installed: see `llmasos search`."))


def _waiting(row: dict[str, Any]) -> str:
    waiting = row["pending_version"]
    return tr(" ({waiting} waits for consent)", waiting=waiting) if waiting else ""


def show_grants(app: str | None) -> None:
    """Print what was consented to, of one app or of all."""
    url = database()
    installed = [row["app_id"] for row in reader.installations(url, WORKSPACE)] if url else []
    if app is not None and app not in installed:
        raise NotFound(_("{app} is not installed: see `llmasos list`.", app=app))
    found = reader.grants(url, WORKSPACE, [app] if app else []) if url else []
    if options().json:
        emit_json(
            {
                "items": [
                    {
                        "app": row["app_id"],
                        "version": row["version"],
                        "capability": row["capability"],
                        "scope": row["scope"],
                        "revoked_at": row["revoked_at"],
                    }
                    for row in found
                ]
            }
        )
        return
    for row in found:
        revoked = tr("  revoked") if row["revoked_at"] else ""
        reason = local_text(row["scope"].get("reason"))
        say(f"{row['app_id']} {row['version']}  {row['capability']}{revoked}  {reason}")
    if not found:
        say(tr("Nothing was granted."))
