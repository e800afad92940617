import pytest

from llmasos.bundles.manifest import parse_manifest
from llmasos.bundles.parts import LimitsRequest
from llmasos.bundles.testing import manifest_text
from llmasos.installs.risk import Risk, risks_of, worst
from llmasos.installs.wording import describe_risk

MODEL = '[[permissions]]\ncapability = "model"\ntiers = ["fast"]\nreason.en = "x"\n'
STORAGE = '[[permissions]]\ncapability = "storage"\nreason.en = "x"\n'


def http(hosts: str, methods: str = '["GET"]') -> str:
    return f'[[permissions]]\ncapability = "http"\nhosts = {hosts}\nmethods = {methods}\nreason.en = "x"\n'


def secret(host: str) -> str:
    place = f'{{ name = "k", host = "{host}", header = "authorization" }}'
    return f'[[permissions]]\ncapability = "secrets"\nsecrets = [{place}]\nreason.en = "x"\n'


def risks(*permissions: str, limits: LimitsRequest | None = None) -> dict[str, Risk]:
    manifest = parse_manifest(manifest_text(extra="".join(permissions)))
    found = risks_of(manifest.permissions, limits)
    assert all(describe_risk(risk, "en") != describe_risk(risk, "zh") for risk in found)
    return {risk.code: risk for risk in found}


ANY, WILD, FIXED = '["*"]', '["https://*.a.com"]', '["https://api.a.com"]'


@pytest.mark.parametrize(
    ("permissions", "code", "level"),
    [
        ((STORAGE, MODEL, http(ANY)), "exfiltration", "danger"),
        ((STORAGE, http(ANY)), "exfiltration", "danger"),
        ((MODEL, http(ANY)), "any-server", "warning"),
        ((http(ANY),), "any-server", "warning"),
        ((STORAGE, MODEL, http(WILD)), "wide-way-out", "warning"),
        ((MODEL, http(WILD)), "wide-way-out", "info"),
        ((STORAGE, MODEL, http(FIXED)), "fixed-servers", "info"),
        ((secret("https://api.a.com"), http(ANY)), "secrets-any-server", "danger"),
        ((secret("http://api.a.com"), http('["http://api.a.com"]')), "secrets-in-the-clear", "danger"),
        ((http('["http://a.com"]'),), "not-encrypted", "warning"),
        ((MODEL, secret("https://api.a.com"), http(FIXED, '["POST"]')), "acts-in-your-name", "warning"),
        ((secret("https://api.a.com"), http(FIXED, '["POST"]')), "acts-in-your-name", "info"),
    ],
)
def test_each_combination_has_its_level(permissions: tuple[str, ...], code: str, level: str) -> None:
    assert risks(*permissions)[code].level == level


def test_an_ordinary_app_has_no_warnings() -> None:
    assert risks(MODEL, STORAGE) == {}
    assert worst(risks(MODEL, STORAGE, http(FIXED)).values()) == "info"
    assert set(risks(http('["http://127.0.0.1:8000", "http://localhost"]'))) == {"fixed-servers"}


def test_the_sentence_names_what_and_where() -> None:
    risk = risks(STORAGE, MODEL, http('["https://api.a.com", "https://b.com:8443"]'))["fixed-servers"]
    said = describe_risk(risk, "en")
    assert said == "It may send what it remembers of you to api.a.com, b.com, and to nobody else."
    assert "它记住的关于你的内容" in describe_risk(risk, "zh")


def test_a_missing_daily_token_limit_is_a_risk() -> None:
    assert "unlimited-tokens" in risks(MODEL, limits=LimitsRequest())
    assert "unlimited-tokens" not in risks(MODEL, limits=LimitsRequest(tokens_per_day=5))


def test_the_worst_comes_first() -> None:
    found = risks(STORAGE, MODEL, http('["*", "http://a.com"]'), limits=LimitsRequest())
    assert [risk.level for risk in found.values()] == ["danger", "warning", "info"]
