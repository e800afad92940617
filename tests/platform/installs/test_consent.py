import pytest

from llmasos.bundles.manifest import Manifest, parse_manifest
from llmasos.bundles.testing import manifest_text
from llmasos.installs.consent import first_consent, renewed_consent, upgrade_consent
from llmasos.installs.wording import describe, describe_bytes, describe_limits, describe_risk

EVERY_KIND = """
[[permissions]]
capability = "model"
tiers = ["fast"]
models = ["openai/gpt-x"]
embeddings = true
reason.en = "Answers."
reason.zh = "回答问题。"
[[permissions]]
capability = "storage"
max_bytes = 1048576
reason.en = "Remembers."
[[permissions]]
capability = "http"
hosts = ["https://api.a.com", "https://*.b.com", "http://c.com:8080"]
methods = ["GET", "POST"]
optional = true
reason.en = "Looks things up."
[[permissions]]
capability = "secrets"
secrets = [{ name = "key", host = "https://api.a.com", header = "authorization" }]
reason.en = "Signs in."
[[permissions]]
capability = "apps"
apps = ["acme/words"]
reason.en = "Knows words."
[limits]
tokens_per_day = 50000
[dependencies]
"acme/words" = ">=1"
"""


def manifest(extra: str = EVERY_KIND, version: str = "1.0.0") -> Manifest:
    return parse_manifest(manifest_text(version=version, extra=extra))


@pytest.mark.parametrize(
    ("locale", "said"),
    [
        (
            "en",
            [
                "Ask language models (fast, openai/gpt-x), up to 1,024 tokens an answer, and compare texts by meaning",
                "Keep up to 1 MiB of data for you",
                "Read from and send to api.a.com, every server under b.com, http://c.com:8080",
                "Send secrets that you give it: “key” to https://api.a.com",
                "Run acme/words for you, on your quota",
            ],
        ),
        (
            "zh",
            [
                "向语言模型提问（快速、openai/gpt-x），每次回答最多 1,024 个 token，并按含义比较文本",
                "为你保存最多 1 MiB 的数据",
                "读取并发送数据到 api.a.com、b.com 下的所有服务器、http://c.com:8080",
                "发送你提供给它的密钥：“key”发送到 https://api.a.com",
                "代你运行 acme/words，使用你的配额",
            ],
        ),
    ],
)
def test_every_kind_of_permission_is_described_in_plain_words(locale: str, said: list[str]) -> None:
    request = first_consent(manifest())
    assert [describe(each.permission, locale) for each in request.permissions] == said
    limits = describe_limits(request.manifest.limits, locale)
    assert len(limits) == 3
    assert "50,000" in limits[-1]


@pytest.mark.parametrize(
    ("hosts", "methods", "said"),
    [
        ('["*"]', '["GET"]', "Read from any server on the internet"),
        ('["*"]', '["GET", "PUT"]', "Read from and send to any server on the internet"),
        ('["https://a.com"]', '["HEAD"]', "Read from a.com"),
    ],
)
def test_the_reach_of_http_is_described(hosts: str, methods: str, said: str) -> None:
    text = f'[[permissions]]\ncapability = "http"\nhosts = {hosts}\nmethods = {methods}\nreason.en = "x"'
    assert describe(manifest(text).permissions[0], "en") == said


def test_a_first_install_asks_for_everything() -> None:
    request = first_consent(manifest())
    assert request.is_needed
    assert {each.status for each in request.permissions} == {"asked"}
    assert request.asked == {"model", "storage", "http", "secrets", "apps"}
    assert [each.capability for each in request.optional] == ["http"]


def test_even_an_app_that_asks_for_nothing_needs_consent_once() -> None:
    assert first_consent(manifest("")).is_needed
    assert not upgrade_consent(manifest("", "1.1.0"), manifest("")).is_needed


def test_dangers_are_part_of_the_request() -> None:
    wide = EVERY_KIND.replace('"https://api.a.com", "https://*.b.com"', '"*"')
    request = first_consent(manifest(wide))
    assert request.level == "danger"
    assert any("陌生人" in describe_risk(risk, "zh") for risk in request.risks)


def test_an_upgrade_asks_for_what_changed() -> None:
    old = manifest(
        '[[permissions]]\ncapability = "storage"\nmax_bytes = 10\nreason.en = "x"\n[limits]\nmemory_mib = 32'
    )
    new = manifest(
        '[[permissions]]\ncapability = "storage"\nmax_bytes = 20\nreason.en = "x"\n'
        '[[permissions]]\ncapability = "model"\ntiers = ["fast"]\nreason.en = "x"',
        "2.0.0",
    )
    request = upgrade_consent(new, old)
    assert {each.capability: each.status for each in request.permissions} == {"storage": "wider", "model": "new"}
    assert request.raised_limits == ("memory_mib",)
    assert request.is_needed
    back = upgrade_consent(old, new)
    assert not back.is_needed
    assert [permission.capability for permission in back.dropped] == ["model"]


def test_what_was_not_granted_is_asked_for_again() -> None:
    asked = {permission.capability: permission for permission in manifest().permissions}
    request = renewed_consent(manifest(), {name: asked[name] for name in ("model", "storage", "secrets")})
    assert request.asked == {"http", "apps"}
    assert request.is_needed
    assert not renewed_consent(manifest(), asked).is_needed


def test_what_was_narrowed_is_asked_for_again_as_wider() -> None:
    """12-4: otherwise nothing would ever widen it again."""
    asked = {permission.capability: permission for permission in manifest().permissions}
    narrower = asked | {"storage": asked["storage"].model_copy(update={"max_bytes": 10})}
    request = renewed_consent(manifest(), narrower)
    assert {each.capability: each.status for each in request.permissions if each.needs_consent} == {"storage": "wider"}


@pytest.mark.parametrize(("number", "said"), [(1, "1 B"), (1536, "1.5 KiB"), (1 << 20, "1 MiB"), (1 << 30, "1 GiB")])
def test_sizes_have_units_that_people_read(number: int, said: str) -> None:
    assert describe_bytes(number) == said
