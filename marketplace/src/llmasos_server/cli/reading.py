"""`search`, `show`, `list`, `grants show`: of the named server, or of this home, fast; see `catalog/reader.py`."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from llmasos.errors import NotFound
from llmasos.home import WORKSPACE, state_home_and_database_url
from llmasos.i18n import _, render
from llmasos.printable import one_line
from llmasos_marketplace.catalog import reader
from llmasos_server.cli.completion import catalog_apps
from llmasos_server.cli.inputs import say_inputs
from llmasos_server.cli.output import emit_json, local_text, locale, note, options, say, say_heading, say_table, tr
from llmasos_server.cli.remote import Server, named_server, segment

_APP_FIELDS: Final = ("id", "name", "summary", "categories", "latest_version")


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
    with named_server() as server:
        found = _searched_on(server, words, limit) if server else _searched(words, limit)
    if options().json:
        emit_json({"items": found})
    elif found:
        say_table(
            [(each["id"], each["latest_version"], local_text(each["summary"])) for each in found],
            (tr("app"), tr("version"), tr("summary")),
        )
    elif words:
        say(tr("No app matches {words!r}. `llmasos search` lists all.", words=words))
    else:
        say(tr("The catalog is empty: `llmasos quickstart` fills it."))


def _searched(words: str, limit: int) -> list[dict[str, Any]]:
    url = database()
    found = reader.search(url, words, limit) if url else []
    meant = reader.respelled(url, words) if url and words and not found else None
    if url and meant:
        found = reader.search(url, meant, limit)
        note(tr("No app matches {words!r}. These match {meant!r}:", words=words, meant=meant))
    return [_app_json(row) for row in found]


def _searched_on(server: Server, words: str, limit: int) -> list[dict[str, Any]]:
    found = server.items("/catalog/v1/search", limit, q=words) if words else server.items("/catalog/v1/apps", limit)
    return [{field: each[field] for field in _APP_FIELDS} for each in found]


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
    app_id, _, version = app.partition("@")
    with named_server() as server:
        described, shown = _shown_on(server, app_id, version) if server else _shown(app_id, version)
    if options().json:
        listed = [
            {key: each[key] for key in ("version", "state", "state_reason", "digest")} for each in described["releases"]
        ]
        emit_json({field: described[field] for field in _APP_FIELDS} | {"release": shown, "releases": listed})
    else:
        _say_app(described, shown)


def _shown_on(server: Server, app_id: str, version: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """An app with its releases, and one of them in full; of the server."""
    path = f"/catalog/v1/apps/{segment(app_id)}"
    described = server.get(path)
    chosen = version or described["latest_version"]
    return described, server.get(f"{path}/releases/{segment(chosen)}")


def _shown(app_id: str, version: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """An app with its releases, and one of them in full; of this home."""
    from packaging.version import Version

    url = database()
    row = reader.app(url, app_id) if url else None
    if url is None or row is None:
        raise reader.no_such_app(app_id, reader.app_ids(url) if url else [])
    releases = sorted(reader.releases(url, app_id), key=lambda each: Version(each["version"]), reverse=True)
    shown = next((each for each in releases if each["version"] == (version or row["latest_version"])), None)
    if shown is None:
        from llmasos.installs.resolve import no_such_release

        raise no_such_release(app_id, version, [each["version"] for each in releases])
    return {**_app_json(row), "releases": releases}, shown


def _say_app(app: dict[str, Any], shown: dict[str, Any]) -> None:
    manifest = shown["manifest"]
    say_heading(f"{app['id']} {shown['version']}  {local_text(app['name'])}")
    say(local_text(app["summary"]))
    say()
    say(f"{tr('Runs as')}: {shown['runtime']}   {tr('Licence')}: {one_line(manifest['license'])}")
    say(f"{tr('Categories')}: {', '.join(app['categories']) or '-'}")
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
    for each in app["releases"]:
        say(f"  {each['version']}  {_state(each)}")


def _state(release: dict[str, Any]) -> str:
    words = {
        "available": tr("available"),
        "yanked": tr("yanked"),
        "quarantined": tr("quarantined"),
    }
    reason = f" ({one_line(_reason(release))})" if release["state_reason"] else ""
    return words[release["state"]] + reason


def _reason(release: dict[str, Any]) -> str:
    reason = release["state_reason"]
    return reason if isinstance(reason, str) else render(reason, locale())


def list_() -> None:
    """List what is installed."""
    with named_server() as server:
        found = _installed_on(server) if server else _installed()
    if options().json:
        emit_json({"items": found})
    elif found:
        say_table(
            [(each["app"], each["version"] + _waiting(each), local_text(each["name"])) for each in found],
            (tr("app"), tr("version"), tr("name")),
        )
    else:
        say(tr("Nothing is installed: see `llmasos search`."))


def _installed() -> list[dict[str, Any]]:
    url = database()
    return [
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
        for row in (reader.installations(url, WORKSPACE) if url else [])
    ]


def _installed_on(server: Server) -> list[dict[str, Any]]:
    fields = ("id", "app", "version", "runtime", "digest", "name", "waiting", "installed_at")
    return [{field: each[field] for field in fields} for each in server.items("/api/v1/installations")]


def _waiting(installed: dict[str, Any]) -> str:
    waiting = installed["waiting"]
    return tr(" ({waiting} waits for consent)", waiting=waiting) if waiting else ""


def show_grants(app: str | None) -> None:
    """Print what was consented to, of one app or of all."""
    with named_server() as server:
        installed = _installed_on(server) if server else _installed()
        if app is not None:
            installed = [each for each in installed if each["app"] == app]
            if not installed:
                raise NotFound(_("{app} is not installed: see `llmasos list`.", app=app))
        found = _granted_on(server, installed) if server else _granted(app)
    if options().json:
        emit_json({"items": found})
    elif found:
        rows: list[tuple[str, ...]] = [
            (
                *(f"{each['app']} {each['version']}", each["capability"]),
                tr("revoked") if each["revoked_at"] else tr("allowed"),
                local_text(each["scope"].get("reason")),
            )
            for each in found
        ]
        say_table(rows, (tr("app"), tr("capability"), tr("state"), tr("reason")))
    else:
        say(tr("Nothing was granted."))


def _granted(app: str | None) -> list[dict[str, Any]]:
    url = database()
    return [
        {
            "app": row["app_id"],
            "version": row["version"],
            "capability": row["capability"],
            "scope": row["scope"],
            "revoked_at": row["revoked_at"],
        }
        for row in (reader.grants(url, WORKSPACE, [app] if app else []) if url else [])
    ]


def _granted_on(server: Server, installed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"app": each["app"], "version": each["version"], **grant}
        for each in installed
        for grant in server.items(f"/api/v1/installations/{segment(each['id'])}/grants")
    ]
