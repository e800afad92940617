"""Where the host keeps its state, and its few knobs.

`config.toml` in the home, overridden by `LLMASOS_*` in the environment.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource
from typing_extensions import override

from llmasos.home import default_home


class Settings(BaseSettings):
    """The host's settings, frozen once read."""

    model_config = SettingsConfigDict(env_prefix="LLMASOS_", frozen=True, extra="ignore")

    home: Path = Field(default_factory=default_home)
    database_url: str = ""
    """A SQLAlchemy URL; empty: SQLite in the home."""
    url: str = ""
    """A running server that commands use instead of starting a host."""
    token: str = ""
    """The bearer token for that server."""
    hub_url: str = "https://huggingface.co"
    """Where `models pull` takes weights from, or a mirror of it."""
    runners: int = 2
    """Warm component runners."""
    runner_threads: int = 512
    """Invocations at once in one component runner; most of them wait for a model."""
    memory_budget_mib: int = 4096
    """What all running components together may hold; past it, invocations wait."""
    plugins: Literal["on", "off"] = "on"
    """`off` starts without any installed plugin; the built-ins stay."""
    http_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Private networks that apps' requests may reach, such as `["10.1.0.0/16"]`. None unless an operator says so."""
    native_idle_seconds: float = 300.0
    """How long the runner of a native app stays warm while nobody uses it."""
    native_runners: int = 50
    """Runners of native apps at once; past it the one not used for longest ends."""
    trusted_apps: tuple[str, ...] = ()
    """Native apps, by id, that run unconfined where this system cannot confine: they may do all that the host may."""
    bubblewrap: Literal["off", "on"] = "off"
    """`on` starts every runner that is confined behind `bwrap` besides, and none at all where that cannot be used."""
    call_depth: int = 8
    """How deep an app may call an app that calls an app."""

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is passed in wins, then the environment, then `config.toml`."""
        file = default_home() / "config.toml"
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)

    @property
    def resolved_database_url(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{self.home / 'llmasos.db'}"
