import pytest

from llmasos.bundles.manifest import Manifest, parse_manifest
from llmasos.bundles.testing import manifest_text
from llmasos.installs.consent import consent, describe, describe_bytes

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
    ("locale", "name", "said"),
    [
        (
            "en",
            "Hello",
            [
                "Ask language models (fast, openai/gpt-x), up to 1,024 tokens an answer, and compare texts by meaning",
                "Keep up to 1 MiB of data for you",
                "Read from and send to api.a.com, every server under b.com, http://c.com:8080",
                "Have your secrets used, without seeing them: “key” at https://api.a.com",
                "Run acme/words for you, on your quota",
            ],
        ),
        (
            "zh",
            "你好",
            [
                "向语言模型提问（快速、openai/gpt-x），每次回答最多 1,024 个 token，并按含义比较文本",
                "为你保存最多 1 MiB 的数据",
                "读取并发送数据到 api.a.com、b.com 下的所有服务器、http://c.com:8080",
                "使用你的密钥（应用看不到其内容）：在 https://api.a.com 使用“key”",
                "代你运行 acme/words，使用你的配额",
            ],
        ),
    ],
)
def test_every_kind_of_permission_is_said_in_plain_words(locale: str, name: str, said: list[str]) -> None:
    screen = consent(manifest(), None, locale)
    assert screen.name == name
    assert [line.what for line in screen.lines] == said
    assert screen.lines[0].why == ("回答问题。" if locale == "zh" else "Answers.")
    assert [line.optional for line in screen.lines] == [False, False, True, False, False]
    assert len(screen.limits) == 3
    assert "50,000" in screen.limits[-1]
    assert screen.asks_for_more
    assert {line.change for line in screen.lines} == {"asked"}


@pytest.mark.parametrize(
    ("hosts", "methods", "said"),
    [
        ('["*"]', '["GET"]', "Read from any server on the internet"),
        ('["*"]', '["GET", "PUT"]', "Read from and send to any server on the internet"),
        ('["https://a.com"]', '["HEAD"]', "Read from a.com"),
    ],
)
def test_the_reach_of_http_is_told(hosts: str, methods: str, said: str) -> None:
    text = f'[[permissions]]\ncapability = "http"\nhosts = {hosts}\nmethods = {methods}\nreason.en = "x"'
    assert describe(manifest(text).permissions[0], "en") == said


def test_dangers_are_on_the_screen() -> None:
    wide = EVERY_KIND.replace('"https://api.a.com", "https://*.b.com"', '"*"')
    screen = consent(manifest(wide), None, "zh")
    assert screen.level == "danger"
    assert any("陌生人" in risk.text(screen.locale) for risk in screen.risks)


def test_an_upgrade_shows_what_changes() -> None:
    old = manifest(
        '[[permissions]]\ncapability = "storage"\nmax_bytes = 10\nreason.en = "x"\n[limits]\nmemory_mib = 32'
    )
    new = manifest(
        '[[permissions]]\ncapability = "storage"\nmax_bytes = 20\nreason.en = "x"\n'
        '[[permissions]]\ncapability = "model"\ntiers = ["fast"]\nreason.en = "x"',
        "2.0.0",
    )
    screen = consent(new, old, "en")
    assert {line.capability: line.change for line in screen.lines} == {"storage": "wider", "model": "new"}
    assert screen.raised_limits == ("memory_mib",)
    assert screen.asks_for_more
    back = consent(old, new, "en")
    assert not back.asks_for_more
    assert back.no_longer == ("Ask language models (fast), up to 1,024 tokens an answer",)


@pytest.mark.parametrize(("number", "said"), [(1, "1 B"), (1536, "1.5 KiB"), (1 << 20, "1 MiB"), (1 << 30, "1 GiB")])
def test_sizes_are_read_by_people(number: int, said: str) -> None:
    assert describe_bytes(number) == said
