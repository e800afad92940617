"""The OpenAPI document: FastAPI's own, with descriptions and examples of recurring fields.

A field means the same everywhere, so its description and its example are written once, here; a field that is declared
with a description of its own keeps it.
"""

from __future__ import annotations

from typing import Any, Final, cast

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from llmasos_server.rest.problems import MEDIA_TYPE

TAGS: Final = (
    ("invocations", "Run actions of installed apps, follow them, and read or cancel what ran."),
    ("models", "Ask models and embed texts, in the shape of OpenAI's API; list, add, test and remove models."),
    (
        "installations",
        "What is installed in the workspace; what each app was granted, is set to and stores; changes of all that.",
    ),
    ("usage", "What was used, and the quotas that limit it."),
    ("audit", "What was done in the workspace, and whether its log is as it was written."),
    ("tokens", "What programs authenticate with."),
    ("users", "The members of the workspace, and invitations to join it."),
    ("secrets", "What the host uses for apps and models. Values are taken, and never shown."),
    ("catalog", "The apps that can be installed, for reading. No token is needed."),
    ("health", "For whoever watches the server."),
)

_ID: Final = "0b7d6c2e9a144d0f8a6f2f1c3f5e7a90"
_AT: Final = "2026-11-28T09:30:00Z"
FIELDS: Final[dict[str, tuple[str, Any]]] = {
    "action": ("The action's name.", "translate"),
    "actions": ("The app's actions, with their schemas.", []),
    "app": ("The app's id.", "acme/translator"),
    "apps": ("How many apps.", 3),
    "bundle": ("Where the bundle's bytes are.", "/catalog/v1/apps/acme/translator/releases/1.2.0/bundle"),
    "calls": ("How many calls.", 12),
    "capability": ("A family of host functions, such as model or http.", "model"),
    "categories": ("What the app is about.", ["productivity"]),
    "code": ("Stable, for programs.", "not-found"),
    "completion_tokens": ("Tokens of answers.", 120),
    "context_window": ("The most tokens of a prompt and its answer together.", 8192),
    "cost_micro_usd": ("Millionths of a US dollar; null if a price is unknown.", 42),
    "created_at": ("When it began to exist.", _AT),
    "day": ("In UTC; null for what was used on no known day.", "2026-11-28"),
    "description": ("What the action does.", "Translate text into another language."),
    "detail": ("What is wrong, and what to do about it.", "There is no such thing, or you may not see it."),
    "digest": ("SHA-256, hexadecimal.", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
    "duration_ms": ("Milliseconds from its start to its end.", 840),
    "en": ("In English.", "Translator"),
    "ended_at": ("When it ended; null while it runs.", _AT),
    "error": ("Why it failed; null if it did not.", None),
    "errors": ("Each fault of the input, if there are several.", None),
    "fuel": ("Compute: WebAssembly instructions, roughly.", 9_000_000),
    "goes_to": ("Where the data goes: `local`, or the provider.", "local"),
    "id": ("Its id.", _ID),
    "imports": ("What the component imports.", ["llmasos:app/model@0.1.0"]),
    "input_schema": ("JSON Schema of the input.", {"type": "object"}),
    "installation": ("The installation's id.", _ID),
    "installed_at": ("When it was installed.", _AT),
    "installed_by": ("Who installed it.", "local"),
    "instance": ("The path that was asked for.", "/api/v1/invocations"),
    "invocation": ("The invocation's id.", _ID),
    "items": ("The items of this page.", []),
    "kept": ("Whether it is kept.", True),
    "kind": ("chat or embedding.", "chat"),
    "languages": ("BCP 47.", ["en", "zh"]),
    "latest_version": ("The newest release that is offered.", "1.2.0"),
    "left": ("What may still be used.", 38_000),
    "limit": ("The most that may be used.", 50_000),
    "log": ("What the app printed and logged.", "INFO started\n"),
    "manifest": ("llmapp.toml as JSON.", {"id": "acme/translator"}),
    "memory_bytes": ("The most memory that it held.", 24_117_248),
    "message": ("What happened, and what to do about it.", "A quota is used up."),
    "meter": ("What is counted, such as tokens.", "tokens"),
    "model": ("The model's name.", "smollm2"),
    "name": ("Its name.", "translate"),
    "next": ("The cursor of the next page; null on the last one.", None),
    "notices": ("What to know of the answer.", None),
    "output": ("What the action returned.", "早上好"),
    "output_schema": ("JSON Schema of the output.", {"type": "string"}),
    "parent": ("The invocation whose app called this one.", None),
    "pointer": ("Where, as a JSON pointer.", "/text"),
    "prompt_tokens": ("Tokens of prompts.", 36),
    "published_at": ("When it was published.", _AT),
    "publisher": ("The publisher's id, the first half of an app's.", "acme"),
    "readme": ("README.md, in Markdown.", "# Translator\n"),
    "releases": ("The releases, newest first.", []),
    "reserved": ("What running calls have reserved.", 2_000),
    "resets_at": ("When the window begins anew.", _AT),
    "revoked_at": ("When it was revoked; null if it was not.", None),
    "runtime": ("wasm, python, or the kind of an operator's plugin, which begins with x-.", "wasm"),
    "scope": ("For whom or what it holds.", "workspace"),
    "scope_id": ("Which one of those.", "default"),
    "shown": ("What a run that did not succeed had shown.", ""),
    "size_bytes": ("The bundle's size.", 18_204),
    "started_at": ("When it began.", _AT),
    "state": ("available, yanked or quarantined.", "available"),
    "state_reason": ("Why it is yanked or quarantined; empty if it is not.", ""),
    "status": ("Where it stands.", "succeeded"),
    "streaming": ("Whether the action shows its answer in parts.", True),
    "summary": ("What the app does, in a sentence.", {"en": "Translates text.", "zh": "翻译文本。"}),
    "tasks": ("What it is fit for; empty: everything.", ["chat"]),
    "tier": ("fast, balanced or best.", "fast"),
    "title": ("A name for people.", "Translate"),
    "type": ("`urn:llmasos:problem:` and the code.", "urn:llmasos:problem:not-found"),
    "unpriced_calls": ("Calls whose price is unknown.", 0),
    "updated_at": ("When it last changed.", _AT),
    "usage": ("What it used.", None),
    "used": ("What was used.", 10_000),
    "user": ("Who ran it.", "local"),
    "version": ("A release's version (PEP 440).", "1.2.0"),
    "window": ("Over what it counts: run, minute, hour, day or month.", "day"),
    "zh": ("In Chinese; null if the author wrote none.", "翻译"),
    "app_id": ("The app that did it; null if none did.", "acme/translator"),
    "at": ("When it was done.", _AT),
    "event": ("What was done.", "model.generate"),
    "expires_at": ("When it expires; null: until it is revoked.", _AT),
    "hash": (
        "SHA-256 of the line and of the hash before it.",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ),
    "heads": ("The last hash of each chain.", {"default": "9f86d081884c7d65"}),
    "input": ("Of the prompt.", 150_000),
    "intact": ("Whether every line is as it was written.", True),
    "invocation_id": ("The invocation that did it; null if none did.", _ID),
    "last_used_at": ("When it was last used, within a minute; null: never.", _AT),
    "lines": ("How many lines are as they were written.", 1_204),
    "outcome": ("ok, or the code of the error.", "ok"),
    "overrun": ("What was used beyond what was reserved.", 0),
    "present": ("Whether it can be called at once.", True),
    "previous_hash": (
        "The hash of the line before.",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ),
    "price": ("What a million tokens cost.", None),
    "reason": ("What is wrong with the first line that was changed; empty if none was.", ""),
    "role": ("owner, admin, member or viewer.", "member"),
    "scopes": ("What it allows: run, read, install or admin.", ["read", "run"]),
    "seq": ("The line's number in its chain.", 17),
    "source": ("Who set it.", "operator"),
    "user_id": ("Who did it.", "local"),
    "waiting": ("The release that waits for consent.", None),
    "workspace": ("The chain that was changed; empty if none was.", ""),
    "workspace_id": ("The workspace.", "default"),
    # For one schema alone:
    "ChangeView.id": ("The installation's id.", _ID),
    "EndedView.id": ("Its id.", "local"),
    "InvitationView.email": ("Who is invited.", "ann@example.com"),
    "UserView.name": ("The user's name.", "Ann"),
    "PolicyView.upgrades": (
        "What upgrades by itself: nothing, patches or all; only what asks for nothing new.",
        "nothing",
    ),
    "NewPolicy.upgrades": (
        "What upgrades by itself: nothing, patches or all; only what asks for nothing new.",
        "patches",
    ),
    "PriceView.output": ("Of the answer.", 600_000),
    "TokenView.apps": ("The only apps that it reaches; null: every app.", None),
    "TokenView.state": ("good, expired or revoked.", "good"),
    "TokenView.name": ("What it is for.", "nightly job"),
    "SecretView.name": ("Its name.", "api_key"),
    "GrantView.scope": ("The permission, as the manifest writes it.", {"capability": "model", "tiers": ["fast"]}),
    "Health.status": ("It is well.", "ok"),
    "Problem.status": ("The HTTP status.", 404),
}


def document(app: FastAPI) -> dict[str, Any]:
    """Return the document, which is made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            routes=app.routes,
            tags=[{"name": name, "description": text} for name, text in TAGS],
        )
        _use_problems(made)
        for name, schema in made["components"]["schemas"].items():
            _describe(name, schema)
        for methods in made["paths"].values():
            for operation in methods.values():
                for parameter in operation.get("parameters", ()):
                    _word(FIELDS.get(parameter["name"]), parameter)
        app.openapi_schema = made
    return app.openapi_schema


def _describe(schema_name: str, schema: dict[str, Any]) -> None:
    """Add descriptions to a schema's fields, and an example to the schema."""
    properties = cast("dict[str, dict[str, Any]]", schema.get("properties", {}))
    known = {name: FIELDS.get(f"{schema_name}.{name}") or FIELDS.get(name) for name in properties}
    for name, field in properties.items():
        _word(known[name], field)
    schema.setdefault("description", "A page of a list.")
    schema.setdefault("examples", [{name: words[1] for name, words in known.items() if words is not None}])


def _word(words: tuple[str, Any] | None, described: dict[str, Any]) -> None:
    if words is not None:
        described.setdefault("description", words[0])


def _use_problems(made: dict[str, Any]) -> None:
    """Replace the framework's own error schema, which no route returns."""
    for methods in made["paths"].values():
        for operation in methods.values():
            for answer in operation["responses"].values():
                schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
                if schema.get("$ref", "").endswith("/HTTPValidationError"):
                    answer["description"] = "The request is not valid."
                    answer["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for name in ("HTTPValidationError", "ValidationError"):
        made["components"]["schemas"].pop(name, None)
