"""The host's settings.

`config.toml` in the home, overridden by `LLMASOS_*` in the environment.
"""

from __future__ import annotations

import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, cast

from pydantic import Field, ModelWrapValidatorHandler, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from typing_extensions import override

from llmasos.errors import Invalid
from llmasos.home import configured, database_url_of, default_home, expanded
from llmasos.i18n import Message, _, listing
from llmasos.validation import Misfit, misfit

_PREFIX: Final = "LLMASOS_"
# Messages do not repeat their values.
_SECRET: Final = frozenset({"token", "database_url"})

Positive = Annotated[int, Field(ge=1)]


class Settings(BaseSettings):
    """The host's settings, frozen once read."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="ignore")

    home: Path = Field(default_factory=default_home)
    database_url: str = ""
    """A SQLAlchemy URL; empty: SQLite in the home."""
    url: str = ""
    """A running server that commands use instead of starting a host."""
    token: str = ""
    """The bearer token for that server."""
    hub_url: str = "https://huggingface.co"
    """Where `models pull` takes weights from, or a mirror of it."""
    runners: Positive = 2
    """Warm component runners."""
    runner_threads: Positive = 512
    """Invocations at once in one component runner; most of them wait for a model."""
    memory_budget_mib: Positive = 4096
    """What all running components together may hold; past it, invocations wait."""
    plugins: Literal["on", "off"] = "on"
    """`off` starts without any installed plugin; the built-ins stay."""
    http_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Private networks that apps' requests may reach, such as `["10.1.0.0/16"]`. None unless an operator says so."""
    native_idle_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 300.0
    """How long the runner of a native app stays warm while nobody uses it."""
    native_runners: Positive = 50
    """Runners of native apps at once; past it the one not used for longest ends."""
    trusted_apps: tuple[str, ...] = ()
    """Native apps, by id, that run unconfined where this system cannot confine: they may do all that the host may."""
    bubblewrap: Literal["off", "on"] = "off"
    """`on` starts every runner that is confined behind `bwrap` besides, and none at all where that cannot be used."""
    call_depth: Positive = 8
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
        """Order the sources: arguments, then the environment, then `config.toml`."""
        said = InitSettingsSource(settings_cls, configured(default_home()))
        return init_settings, _Environment(settings_cls), said

    @field_validator("home")
    @classmethod
    def _expanded(cls, home: Path) -> Path:
        return expanded(home)

    @field_validator("http_networks", mode="before")
    @classmethod
    def _written_out(cls, networks: object) -> object:
        # The library accepts a number, even `false`, as an address.
        if isinstance(networks, list) and any(isinstance(each, int | float) for each in cast("list[object]", networks)):
            raise Misfit(_('must be an array of networks, such as ["10.1.0.0/16"]'))
        return networks  # pyright: ignore[reportUnknownVariableType]

    @model_validator(mode="wrap")
    @classmethod
    def _refused_in_words(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Word what is wrong with a setting, and where it was set."""
        try:
            return handler(values)
        except ValidationError as error:
            raise Invalid(_("{faults}", faults=listing(map(_fault, error.errors()), "; "))) from None

    @property
    def resolved_database_url(self) -> str:
        """The database's URL."""
        return database_url_of(self.database_url, self.home)


class _Environment(EnvSettingsSource):
    """The variables `LLMASOS_*`."""

    @override
    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Parse a list from its JSON text."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            name = f"{_PREFIX}{field_name.upper()}"
            raise Invalid(_('{name}: write a list as JSON, such as ["acme/probe"]', name=name)) from None


def _fault(detail: ErrorDetails) -> Message:
    name = str(detail["loc"][0])
    variable = f"{_PREFIX}{name.upper()}"
    place = ".".join(map(str, detail["loc"]))
    where = variable if variable in os.environ else f"{default_home() / 'config.toml'}, {place}"
    what = misfit(detail)
    if name in _SECRET:
        return _("{where}: {what}", where=where, what=what)
    return _("{where}: {what}, not {value}", where=where, what=what, value=f"{detail['input']!r:.80}")
