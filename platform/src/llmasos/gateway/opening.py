"""Puts a gateway together: the registry, litellm behind the engine, and the embedded models."""

from __future__ import annotations

from pathlib import Path

from llmasos.database.engine import Database
from llmasos.gateway.embedded.local import LocalModels, OnFetch
from llmasos.gateway.embedded.provider import EmbeddedProvider
from llmasos.gateway.engine import Engine, SecretReader, no_secrets
from llmasos.gateway.gateway import Gateway
from llmasos.gateway.models import EMBEDDED, ModelEntry
from llmasos.gateway.registry import ModelRegistry
from llmasos.gateway.steps import Steps


def open_gateway(
    home: Path,
    database: Database | None = None,
    *,
    read_secret: SecretReader = no_secrets,
    on_fetch: OnFetch | None = None,
    steps: Steps | None = None,
    offered: tuple[ModelEntry, ...] = (),
) -> Gateway:
    """Open the gateway of a host; close it. This imports no litellm and starts nothing: `Gateway.warm` does.

    Args:
        home: The host's folder; weights live in `home/models`.
        database: Stores added models; without one there are only those of `config.toml` and the built-in ones.
        read_secret: Returns an operator's secret by name, for models' keys.
        on_fetch: Called from another thread with (model, fetched bytes, total bytes) while weights are fetched.
        steps: The steps of a call besides litellm: plugins, or none.
        offered: Models that take precedence over all others.
    """
    registry = ModelRegistry(home, database, offered)
    local = LocalModels(home / "models", registry.get, on_fetch)
    return Gateway(registry, Engine({EMBEDDED: EmbeddedProvider(local)}, read_secret), local, steps)
