"""`llmapp.toml`: what an app is, what it asks for, and why.

Strict: an unknown key is an error that names the nearest known one, and every fault is reported at once.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self, TypeAlias

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

# Publisher and name are lower-case words joined by single hyphens: they become paths, URLs and tool names.
WORD = r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*"
APP_ID = re.compile(rf"{WORD}/{WORD}")

AppId: TypeAlias = Annotated[str, StringConstraints(pattern=rf"^{WORD}/{WORD}$", max_length=129)]
Tier: TypeAlias = Literal["fast", "balanced", "best"]


class Frozen(BaseModel):
    """Parsed once at the edge, changed by `model_copy`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Text(Frozen):
    """A text in English and, where the author gave it, in Chinese."""

    en: Annotated[str, StringConstraints(min_length=1, max_length=4000)]
    zh: str | None = None

    def in_locale(self, locale: str) -> str:
        """The text in `locale`, or in English."""
        return self.zh if locale.startswith("zh") and self.zh else self.en


class BasePermission(Frozen):
    """What every permission has: whether the app works without it, and why it is asked for."""

    optional: bool = False
    reason: Text


class ModelPermission(BasePermission):
    """Calls of language models, by tier or by name."""

    capability: Literal["model"]
    tiers: tuple[Tier, ...] = ()
    models: tuple[str, ...] = ()
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    embeddings: bool = False

    @model_validator(mode="after")
    def _names_a_model(self) -> Self:
        if not self.tiers and not self.models and not self.embeddings:
            raise ValueError('name tiers = ["fast"], models = ["…"] or embeddings = true')
        return self


class StoragePermission(BasePermission):
    """Values kept for the app, apart for each user."""

    capability: Literal["storage"]
    max_bytes: Annotated[int, Field(ge=1, le=1 << 30)] = 1 << 20


class HttpPermission(BasePermission):
    """Requests to named servers."""

    capability: Literal["http"]
    hosts: Annotated[tuple[str, ...], Field(min_length=1)]
    """`https://api.example.com`, `https://*.example.com:8443`, or `*` for the whole network."""
    methods: tuple[Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"], ...] = ("GET",)
    max_response_bytes: Annotated[int, Field(ge=1, le=16 << 20)] = 1 << 20


class SecretPlace(Frozen):
    """Where the host puts a secret: into one header or query parameter of requests to one host."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    host: str
    header: str | None = None
    query: str | None = None
    prefix: str = ""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.header is None) == (self.query is None):
            raise ValueError('name one place: header = "authorization" or query = "key"')
        return self


class SecretsPermission(BasePermission):
    """Secrets of the user that the host puts into requests; the app never reads them."""

    capability: Literal["secrets"]
    secrets: Annotated[tuple[SecretPlace, ...], Field(min_length=1)]


class AppsPermission(BasePermission):
    """Calls of other apps' actions; each app stands in `[dependencies]` too."""

    capability: Literal["apps"]
    apps: Annotated[tuple[AppId, ...], Field(min_length=1)]


Permission: TypeAlias = Annotated[
    ModelPermission | StoragePermission | HttpPermission | SecretsPermission | AppsPermission,
    Field(discriminator="capability"),
]


class Runtime(Frozen):
    """What runs the app, and from what: a source that `build` compiles, or a finished component or wheel."""

    kind: Literal["wasm", "python"]
    source: str | None = None
    component: str | None = None
    wheel: str | None = None


class Compat(Frozen):
    """Which hosts the release runs on."""

    llmasos: str = ">=0.1"


class LimitsRequest(Frozen):
    """Asked for; the installation stores what was granted."""

    memory_mib: Annotated[int, Field(ge=32, le=2048)] = 64
    cpu_seconds: Annotated[float, Field(gt=0, le=600)] = 5.0
    wall_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    tokens_per_run: Annotated[int, Field(ge=1)] | None = None
    tokens_per_day: Annotated[int, Field(ge=1)] | None = None


class ConfigField(Frozen):
    """One field of the form at install."""

    type: Literal["string", "integer", "number", "boolean", "array"]
    title: Text
    description: Text | None = None
    enum: tuple[Any, ...] | None = None
    default: Any = None
    ui: Literal["text", "textarea"] = "text"


class Manifest(Frozen):
    """The whole of `llmapp.toml`."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    id: AppId
    version: str
    license: str
    categories: tuple[str, ...] = ()
    icon: str | None = None
    name: Text
    summary: Text
    runtime: Runtime
    compat: Compat = Compat()
    permissions: tuple[Permission, ...] = ()
    limits: LimitsRequest = LimitsRequest()
    config: dict[str, ConfigField] = Field(default_factory=dict)
    dependencies: dict[AppId, str] = Field(default_factory=dict)

    @field_validator("version")
    @classmethod
    def _canonical(cls, value: str) -> str:
        try:
            canonical = str(Version(value))
        except InvalidVersion as error:
            raise ValueError(f"{value!r} is not a version such as 1.2.0") from error
        if canonical != value:
            raise ValueError(f"write {canonical!r} instead of {value!r}")
        return value

    @field_validator("dependencies")
    @classmethod
    def _specifiers(cls, value: dict[str, str]) -> dict[str, str]:
        for app, specifier in value.items():
            try:
                SpecifierSet(specifier)
            except InvalidSpecifier as error:
                raise ValueError(f"{app}: {specifier!r} is not a version specifier such as >=1,<2") from error
        return value

    @property
    def capabilities(self) -> frozenset[str]:
        """The capabilities asked for."""
        return frozenset(permission.capability for permission in self.permissions)
