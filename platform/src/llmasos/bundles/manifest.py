"""`llmapp.toml`: what an app is, what it asks for, and why.

Strict: an unknown key is an error that names the nearest known one, and every fault is reported at once.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, TypeVar, cast

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError, field_validator

from llmasos.bundles.characters import hidden_characters
from llmasos.bundles.faults import ManifestFault, faults_of
from llmasos.bundles.parts import (
    APP_ID,
    WORD,
    AppId,
    AppsPermission,
    BasePermission,
    Category,
    Compat,
    ConfigField,
    FieldName,
    Frozen,
    HttpPermission,
    LimitsRequest,
    LocalisedText,
    Many,
    ModelPermission,
    Permission,
    RelativePath,
    RuntimeSection,
    SecretPlace,
    SecretsPermission,
    Specifier,
    StoragePermission,
    Tier,
)
from llmasos.bundles.rules import ManifestParts, inconsistencies
from llmasos.errors import ManifestRejected
from llmasos.i18n import Message, _, listing
from llmasos.validation import Misfit

__all__ = [
    "APP_ID",
    "MAX_MANIFEST_BYTES",
    "WORD",
    "AppId",
    "AppsPermission",
    "BasePermission",
    "Compat",
    "ConfigField",
    "Frozen",
    "HttpPermission",
    "LimitsRequest",
    "LocalisedText",
    "Manifest",
    "ModelPermission",
    "Permission",
    "RuntimeSection",
    "SecretPlace",
    "SecretsPermission",
    "StoragePermission",
    "Tier",
    "parse_manifest",
]

# Ten times the largest sensible manifest.
MAX_MANIFEST_BYTES: Final = 64 << 10
# The TOML reader's time grows with the square of the number of dots in a key: 5 s for 20,000, almost none for 200.
MAX_DOTS_A_LINE: Final = 200
# More faults than this are only counted.
MAX_FAULTS: Final = 50


class Manifest(Frozen):
    """The whole of `llmapp.toml`."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    id: AppId
    version: Annotated[str, StringConstraints(max_length=100)]
    license: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    categories: Annotated[Many[Category], Field(max_length=10)] = ()
    icon: RelativePath | None = None
    name: LocalisedText
    summary: LocalisedText
    runtime: RuntimeSection
    compat: Compat = Compat()
    permissions: Many[Permission] = ()
    limits: LimitsRequest = LimitsRequest()
    config: dict[FieldName, ConfigField] = Field(default_factory=dict)
    dependencies: dict[AppId, Specifier] = Field(default_factory=dict)

    @field_validator("version")
    @classmethod
    def _canonical(cls, value: str) -> str:
        from packaging.version import InvalidVersion, Version  # noqa: PLC0415 - a run spares it

        try:
            canonical = str(Version(value))
        except InvalidVersion:
            raise Misfit(_("{value!r} is not a version such as 1.2.0", value=value)) from None
        if canonical != value:
            raise Misfit(_("write {canonical!r} instead of {value!r}", canonical=canonical, value=value))
        return value

    @property
    def capabilities(self) -> frozenset[str]:
        """The capabilities that the manifest asks for."""
        return frozenset(permission.capability for permission in self.permissions)

    def permission(self, capability: str) -> Permission | None:
        """The permission for one capability."""
        return next((p for p in self.permissions if p.capability == capability), None)


def parse_manifest(text: str) -> Manifest:
    """Read `llmapp.toml`.

    Args:
        text: Its contents.

    Raises:
        ManifestRejected: The message lists every fault, one per line: the key, what is wrong, and the cure.
    """
    if len(text.encode(errors="surrogatepass")) > MAX_MANIFEST_BYTES:
        raise ManifestRejected(
            _(
                "llmapp.toml is over {max_manifest_kib} KiB: move long texts into README.md",
                max_manifest_kib=MAX_MANIFEST_BYTES >> 10,
            ),
        )
    for number, line in enumerate(text.splitlines(), 1):
        if line.count(".") > MAX_DOTS_A_LINE:
            raise ManifestRejected(
                _(
                    "llmapp.toml line {number} has over {max_dots_a_line} dots: shorten it",
                    number=number,
                    max_dots_a_line=MAX_DOTS_A_LINE,
                ),
            )
    try:
        data = tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        raise ManifestRejected(_("llmapp.toml is not valid TOML: {error}", error=error)) from None
    except (ValueError, RecursionError):
        raise ManifestRejected(
            _("llmapp.toml nests too deeply or holds a number that is too long: simplify it"),
        ) from None
    faults: list[ManifestFault] = []
    manifest: Manifest | None = None
    try:
        faults.extend(_hidden(data))
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        faults.extend(faults_of(error, Manifest))
    except RecursionError:
        raise ManifestRejected(_("llmapp.toml nests too deeply: simplify it")) from None
    faults.extend(inconsistencies(_parts(data)))
    if manifest is None or faults:
        raise ManifestRejected(_report(faults))
    return manifest


def _hidden(data: dict[str, Any]) -> Iterator[ManifestFault]:
    for path, code in hidden_characters(data):
        what = _("it contains {code}, which readers cannot see or which covers other text", code=code)
        cure = _("write it on one line, without control or direction characters")
        yield ManifestFault(path, what, cure)


def _report(faults: list[ManifestFault]) -> Message:
    lines = list(dict.fromkeys(fault.message for fault in faults))
    shown = lines[:MAX_FAULTS]
    if len(lines) > len(shown):
        shown.append(_("… and {more} more", more=len(lines) - len(shown)))
    if len(shown) == 1:
        return _("llmapp.toml: {shown}", shown=shown[0])
    return _("llmapp.toml has {count} faults:\n  {shown}", count=len(lines), shown=listing(shown, "\n  "))


def _parts(data: dict[str, Any]) -> ManifestParts:
    """Parse each part separately, so that a fault in one part does not hide inconsistencies between the others."""
    return ManifestParts(
        id=_attempt(_APP_ID, data.get("id")),
        runtime=_attempt(_RUNTIME, data.get("runtime")),
        permissions=[_attempt(_PERMISSION, item) for item in _array(data.get("permissions"))],
        config={key: _attempt(_CONFIG, item) for key, item in _table(data.get("config")).items()},
        dependencies=frozenset(_table(data.get("dependencies"))),
    )


def _array(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []


def _table(value: object) -> dict[str, object]:
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


_APP_ID: TypeAdapter[str] = TypeAdapter(AppId)
_RUNTIME = TypeAdapter(RuntimeSection)
_PERMISSION: TypeAdapter[Permission] = TypeAdapter(Permission)
_CONFIG = TypeAdapter(ConfigField)
P = TypeVar("P")


def _attempt(adapter: TypeAdapter[P], data: Any) -> P | None:
    try:
        return adapter.validate_python(data)
    except (ValidationError, RecursionError):
        return None
