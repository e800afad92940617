"""The parts of a manifest: texts, permissions, the runtime, limits, and the install form."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal, Self, TypeAlias, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    field_validator,
    model_validator,
)

from llmasos.bundles.hosts import HostPattern
from llmasos.i18n import Message, _
from llmasos.validation import Misfit
from llmasos_runner.protocol import MAX_PAYLOAD_BYTES

# Publisher and name are lower-case words joined by single hyphens: they become paths, URLs and tool names.
WORD = r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*"
APP_ID = re.compile(rf"{WORD}/{WORD}")
NAME = r"^[a-z][a-z0-9_]{0,63}$"

AppId: TypeAlias = Annotated[str, StringConstraints(pattern=rf"^{WORD}/{WORD}$", max_length=129)]
Category: TypeAlias = Annotated[str, StringConstraints(pattern=rf"^{WORD}$", max_length=40)]
FieldName: TypeAlias = Annotated[str, StringConstraints(pattern=NAME)]
T = TypeVar("T")
# TOML and JSON have only arrays, so a list becomes a tuple here; its items stay strict.
Many: TypeAlias = Annotated[tuple[T, ...], Strict(False)]
Tier: TypeAlias = Literal["fast", "balanced", "best"]
Method: TypeAlias = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


def _relative(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or "\\" in value or ":" in value or ".." in path.parts or str(path) != value or value == ".":
        raise Misfit(
            _("{value!r} is not a plain path inside the app's folder, such as icon.svg", value=value),
        )
    return value


RelativePath: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_relative)]


def _specifier(value: str) -> str:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # noqa: PLC0415 - a run spares it

    try:
        SpecifierSet(value)
    except InvalidSpecifier:
        raise Misfit(_("{value!r} is not a version specifier such as >=1,<2", value=value)) from None
    return value


Specifier: TypeAlias = Annotated[str, StringConstraints(max_length=200), AfterValidator(_specifier)]


def _requirement(value: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415

    try:
        requirement = Requirement(value)
    except InvalidRequirement:
        raise Misfit(_("{value!r} is not a package such as numpy>=2", value=value)) from None
    if requirement.url is not None:
        raise Misfit(
            _("{value!r} names an address: publish it as a package, or put its modules into the project", value=value),
        )
    return value


PackageRequirement: TypeAlias = Annotated[str, StringConstraints(max_length=200), AfterValidator(_requirement)]


class Frozen(BaseModel):
    """Parsed once at the edge, changed by `model_copy`, dumped under the keys that it was read from."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, serialize_by_alias=True)


class LocalisedText(Frozen):
    """A text in English and, if the author wrote one, in Chinese."""

    en: Annotated[str, StringConstraints(min_length=1, max_length=4000)]
    zh: Annotated[str, StringConstraints(min_length=1, max_length=4000)] | None = None

    def in_locale(self, locale: str) -> str:
        """The text in `locale`, or in English."""
        return self.zh if locale.startswith("zh") and self.zh else self.en


class BasePermission(Frozen):
    """The fields of every permission: whether the app works without it, and the reason for it."""

    optional: bool = False
    reason: LocalisedText


class ModelPermission(BasePermission):
    """Calls to language models, by tier or by name."""

    capability: Literal["model"]
    tiers: Many[Tier] = ()
    models: Many[Annotated[str, StringConstraints(min_length=1, max_length=200)]] = ()
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    embeddings: bool = False

    @model_validator(mode="after")
    def _names_a_model(self) -> Self:
        if not self.tiers and not self.models and not self.embeddings:
            raise Misfit(
                _('name tiers = ["fast"], models = ["…"] or embeddings = true'),
            )
        return self


class StoragePermission(BasePermission):
    """Values stored for the app, separately for each user."""

    capability: Literal["storage"]
    max_bytes: Annotated[int, Field(ge=1, le=1 << 30)] = 1 << 20


# An answer must fit into one message to the app.
MAX_RESPONSE_BYTES: Final = MAX_PAYLOAD_BYTES


class HttpPermission(BasePermission):
    """Requests to named servers."""

    capability: Literal["http"]
    hosts: Annotated[Many[str], Field(min_length=1, max_length=100)]
    """`https://api.example.com`, `https://*.example.com:8443`, or `*` for the whole network."""
    methods: Annotated[Many[Method], Field(min_length=1)] = ("GET",)
    # A manifest may ask for MAX_RESPONSE_BYTES at most (`rules`). Installations from before that hold up to 16 MiB, of
    # which they always received only that much.
    max_response_bytes: Annotated[int, Field(ge=1, le=16 << 20, json_schema_extra={"maximum": MAX_RESPONSE_BYTES})] = (
        MAX_RESPONSE_BYTES
    )

    @field_validator("hosts")
    @classmethod
    def _are_patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            HostPattern.parse(host)
        return value

    @property
    def patterns(self) -> tuple[HostPattern, ...]:
        """The hosts, parsed."""
        return tuple(HostPattern.parse(host) for host in self.hosts)


# The host sets these itself: a secret here would change the meaning of the request.
TRANSPORT_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"})


class SecretPlace(Frozen):
    """Where the host inserts a secret: into one header or query parameter of requests to one host."""

    name: FieldName
    host: str
    """One server, such as `https://api.example.com`; no wildcard."""
    header: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")] | None = None
    query: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~-]{1,100}$")] | None = None
    prefix: Annotated[str, StringConstraints(pattern=r"^[ -~]{0,100}$")] = ""
    """Stands before the secret, such as `Bearer `."""
    fields: Annotated[tuple[str, ...], Field(max_length=32)] | None = None
    """The only parts of an answer that the app gets besides its status, as JSON pointers; left out: all of it."""

    @field_validator("fields")
    @classmethod
    def _are_pointers(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for pointer in value or ():
            if not re.fullmatch(r"(/[^/\x00-\x1f]{1,100}){1,16}", pointer):
                raise Misfit(_("{pointer!r} is not a JSON pointer such as /items/0/name", pointer=pointer[:100]))
        return value

    @field_validator("host")
    @classmethod
    def _is_one_server(cls, value: str) -> str:
        pattern = HostPattern.parse(value)
        if pattern.wildcard or pattern.is_everything:
            raise Misfit(
                _("a secret goes to one server: name it instead of {value!r}", value=value),
            )
        return value

    @field_validator("header")
    @classmethod
    def _is_free(cls, value: str | None) -> str | None:
        if value is not None and value.lower() in TRANSPORT_HEADERS:
            raise Misfit(
                _("{value} belongs to the transport: use a header such as authorization", value=value),
            )
        return value

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.header is None) == (self.query is None):
            raise Misfit(
                _('name one place: header = "authorization" or query = "key"'),
            )
        return self


class SecretsPermission(BasePermission):
    """Secrets of the user that the host inserts into requests; the app is not given them."""

    capability: Literal["secrets"]
    secrets: Annotated[Many[SecretPlace], Field(min_length=1, max_length=20)]


class AppsPermission(BasePermission):
    """Calls to other apps' actions; each app must also be in `[dependencies]`."""

    capability: Literal["apps"]
    apps: Annotated[Many[AppId], Field(min_length=1, max_length=50)]


Permission: TypeAlias = Annotated[
    ModelPermission | StoragePermission | HttpPermission | SecretsPermission | AppsPermission,
    Field(discriminator="capability"),
]


def _kind(value: str) -> str:
    if value not in {"wasm", "python"} and not re.fullmatch(r"x-[a-z0-9-]{1,60}", value):
        raise ValueError(
            f"{value!r:.80} is not a kind of app: use 'wasm' or 'python'; that of an operator's plugin begins with x-"
        )
    return value


class RuntimeSection(Frozen):
    """The app's runtime, and its source, which `build` compiles, or its finished component or wheel."""

    kind: Annotated[str, AfterValidator(_kind)]
    source: RelativePath | None = None
    component: RelativePath | None = None
    wheel: RelativePath | None = None
    requirements: Annotated[Many[PackageRequirement], Field(max_length=100)] = ()
    """Of an app made from a Python source: the packages that it imports, such as `numpy>=2`. `build` locks them."""


class Compat(Frozen):
    """The hosts that the release runs on."""

    llmasos: Specifier = ">=0.1"


class LimitsRequest(Frozen):
    """The limits that the app asks for; the installation stores what was granted."""

    memory_mib: Annotated[int, Field(ge=32, le=2048)] = 64
    cpu_seconds: Annotated[float, Field(gt=0, le=600)] = 5.0
    wall_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    tokens_per_run: Annotated[int, Field(ge=1)] | None = None
    tokens_per_day: Annotated[int, Field(ge=1)] | None = None


class ConfigField(Frozen):
    """One field of the install form."""

    type: Literal["string", "integer", "number", "boolean", "array"]
    title: LocalisedText
    description: LocalisedText | None = None
    enum: Annotated[Many[Any], Field(min_length=1, max_length=200)] | None = None
    default: Any = None
    """Without one, the installer must give a value."""
    ui: Literal["text", "textarea"] = "text"

    def fault_of(self, value: Any) -> Message | None:
        """What is wrong with a value for this field, or None."""
        if self.type == "array":
            if not isinstance(value, list | tuple) or not all(
                isinstance(item, str) for item in cast("list[Any]", value)
            ):
                return _("it must be an array of strings, not {value}", value=f"{value!r:.80}")
            items = list(cast("list[Any]", value))
        else:
            if not _FITS[self.type](value):
                return _("it must be {wanted}, not {value}", wanted=_ARTICLE[self.type], value=f"{value!r:.80}")
            items = [value]
        for item in items:
            if self.enum is not None and item not in self.enum:
                choices = [repr(choice) for choice in self.enum]
                return _("it must be one of {choices}, not {item}", choices=choices, item=f"{item!r:.80}")
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_FITS: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": _is_number,
    "boolean": lambda value: isinstance(value, bool),
}
_ARTICLE = {
    "string": _("a string"),
    "integer": _("a whole number"),
    "number": _("a number"),
    "boolean": _("true or false"),
}
