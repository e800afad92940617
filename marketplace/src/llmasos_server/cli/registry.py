"""Every command and its module, so that `llmasos --help` imports none of them.

To add a command, write a function with Typer's annotations (or a `typer.Typer` for one with parts, as `quota set`)
in a module of this package, name it here, and say in `PLACES` where it works if `LLMASOS_URL` names a server. `--json`
and `--debug` are added to every command; ask `output.options()` for them. Raise `LlmasosError`s; the shell prints them
and sets the exit code. A command whose module is not installed is left out of the help.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from llmasos.i18n import Message, _

Section: TypeAlias = Literal["use", "write", "operate"]


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """One command: `target` is "module:attribute" below this package."""

    name: str
    target: str
    section: Section
    help: Message

    @property
    def module(self) -> str:
        """The module's name below this package."""
        return self.target.partition(":")[0]

    @property
    def attribute(self) -> str:
        """The function or `typer.Typer` in it."""
        return self.target.partition(":")[2]


_ROWS: Final[tuple[tuple[str, str, Section, Message], ...]] = (
    ("quickstart", "quickstart:quickstart", "use", _("Set up, install two apps, run them.")),
    ("search", "reading:search", "use", _("Search the catalog.")),
    ("show", "reading:show", "use", _("Show an app and its releases.")),
    ("install", "store:install", "use", _("Install an app, after your consent.")),
    ("upgrade", "store:upgrade", "use", _("Upgrade an app, or all of them.")),
    ("rollback", "store:rollback", "use", _("Return to the release before.")),
    ("uninstall", "store:uninstall", "use", _("Remove an app.")),
    ("list", "reading:list_", "use", _("List what is installed.")),
    ("grants", "store:grants", "use", _("Show or revoke what an app may do.")),
    ("run", "run:command", "use", _("Run an action of an app.")),
    ("invocations", "invocation_content:invocations", "use", _("List what ran; show or delete its input and output.")),
    ("logs", "invocations:logs", "use", _("Show what apps logged and why they failed.")),
    ("new", "author:new", "write", _("Start a new app.")),
    ("add", "author:add", "write", _("Add packages to an app.")),
    ("check", "author:check", "write", _("Check an app's manifest and code.")),
    ("dev", "dev:dev", "write", _("Check, run and test an app on every change.")),
    ("test", "author:test", "write", _("Run an app's tests.")),
    ("build", "author:build", "write", _("Build an app's bundle.")),
    ("inspect", "author:inspect", "write", _("Show what a bundle is and asks for.")),
    ("publish", "publish:publish", "write", _("Publish an app to the catalog.")),
    ("yank", "publish:yank", "write", _("Keep new installs from a release.")),
    ("unyank", "publish:unyank", "write", _("Offer a yanked release again.")),
    ("completion", "completion:completion", "use", _("Complete commands and apps in your shell.")),
    ("serve", "serve:serve", "operate", _("Serve apps, catalog and API.")),
    ("models", "models:models", "operate", _("List, add, test and fetch models.")),
    ("quota", "quota:quota", "operate", _("Set and list quotas.")),
    ("usage", "quota:usage", "operate", _("Show what was used.")),
    ("audit", "quota:audit", "operate", _("Read and verify the audit log.")),
    ("secrets", "secrets:secrets", "operate", _("Set, list and remove secrets.")),
    ("tokens", "tokens:tokens", "operate", _("Create, list and revoke tokens.")),
    ("users", "users:users", "operate", _("List and invite members, and change their roles.")),
    ("policy", "policy:policy", "operate", _("Choose who may install what, and approve what waits.")),
    ("plugins", "plugins:plugins", "operate", _("List operator plugins.")),
    ("backup", "backup:backup", "operate", _("Back up the home into one file.")),
    ("restore", "backup:restore", "operate", _("Restore a home from a backup.")),
    ("migrate", "admin:migrate", "operate", _("Bring the database up to date.")),
    ("gc", "gc:gc", "operate", _("Free the room that nothing needs.")),
    ("doctor", "admin:doctor", "operate", _("Check every part; say what to do.")),
)

Place: TypeAlias = Literal["server", "home", "machine"]
"""Where a command works if `LLMASOS_URL` names a server.

server: It talks to that server.
home: It works on the home of this machine, which the user may mistake for the server's, so it is refused.
machine: What it does belongs to this machine, such as the folder of a project; it runs, and a note says where.
"""

PLACES: Final[dict[str, Place]] = {
    "quickstart": "machine",
    "search": "server",
    "show": "server",
    "install": "home",
    "upgrade": "home",
    "rollback": "home",
    "uninstall": "home",
    "list": "server",
    "grants show": "server",
    "grants revoke": "home",
    "run": "server",
    "invocations list": "server",
    "invocations show": "server",
    "invocations delete": "server",
    "invocations keep": "server",
    "logs": "server",
    "new": "machine",
    "add": "machine",
    "check": "machine",
    "dev": "machine",
    "test": "machine",
    "build": "machine",
    "inspect": "machine",
    "publish": "home",
    "yank": "home",
    "unyank": "home",
    "completion": "machine",
    "serve": "machine",
    "models list": "server",
    "models add": "home",
    "models remove": "server",
    "models test": "server",
    "models pull": "home",
    "quota set": "server",
    "quota list": "server",
    "quota remove": "server",
    "usage": "server",
    "audit": "server",
    "audit verify": "server",
    "secrets set": "server",
    "secrets list": "server",
    "secrets remove": "server",
    "tokens create": "server",
    "tokens list": "server",
    "tokens revoke": "server",
    "users list": "server",
    "users invite": "server",
    "users uninvite": "server",
    "users role": "server",
    "users remove": "server",
    "users link": "home",
    "policy show": "server",
    "policy set": "server",
    "policy requests": "server",
    "policy approve": "server",
    "policy refuse": "server",
    "plugins list": "machine",
    "backup": "machine",
    "restore": "machine",
    "migrate": "machine",
    "gc": "machine",
    "doctor": "machine",
}
"""By the words that call it; platform/README.md has the same table."""

ENTRIES: Final = tuple(CommandEntry(*row) for row in _ROWS)

BY_NAME: Final = {entry.name: entry for entry in ENTRIES}

SECTION_TITLES: Final[dict[Section, Message]] = {
    "use": _("Find and use apps"),
    "write": _("Write and publish apps"),
    "operate": _("Operate"),
}
