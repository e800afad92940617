"""Markdown that others wrote: whatever it holds, nothing runs, loads, or leads into our own pages."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from llmasos_server.web.markdown import MAX_CHARACTERS, MAX_PARAGRAPH, to_html

BYPASSES = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<math><mi//xlink:href='data:x,<script>alert(4)</script>'>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java&#115;cript:alert(1))",
    "[x](javascript&colon;alert(1))",
    "[x](\x01javascript:alert(1))",
    "[x](vbscript:msgbox(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "<javascript:alert(1)>",
    "[x]: javascript:alert(1)\n\n[x]",
    "![x](https://evil.example/?secret)",
    "![x](data:image/svg+xml,<svg onload=alert(1)>)",
    '![x" onerror="alert(1)](https://evil.example/a.png)',
    '[x](https://a.example "onclick=alert(1)")',
    '[x](https://a.example/"onmouseover="alert(1))',
    "[x](/sign-out)",
    "[x](//evil.example)",
    "[x](?next=/)",
    "[x](\\\\evil.example)",
    '`<script>`\n\n```html"><script>\nalert(1)\n```',
    "| a |\n|---|\n| <script>alert(1)</script> |",
    "<a href='javascript:alert(1)'>x</a>",
    "<!--><script>alert(1)</script>-->",
    "<style>@import 'https://evil.example'</style>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<form action=/sign-out><button>x</button></form>",
    "&lt;script&gt;",
]
ALLOWED = {
    *("p", "br", "hr", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "em", "strong", "s", "a"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}


class Seen(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(html)

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]


def check(text: str) -> None:
    seen = Seen(to_html(text))
    assert seen.tags <= ALLOWED
    for tag, name, value in seen.attributes:
        assert (tag, name) in {("a", "href"), ("a", "title"), ("a", "rel"), ("ol", "start")} or name == "tabindex"
        if name == "href":
            assert value.lower().startswith(("http://", "https://", "mailto:"))


@pytest.mark.parametrize("text", BYPASSES)
def test_no_known_bypass_of_markdown_brings_more_than_text(text: str) -> None:
    """12-6: Markdown with every known bypass."""
    check(text)


@given(st.lists(st.sampled_from([*BYPASSES, "\n\n", "> ", "* ", "**", "`", "[", "](", ")", "<", '"']), max_size=8))
def test_no_mixture_of_bypasses_brings_more_than_text(parts: list[str]) -> None:
    """12-6: Markdown with every known bypass, mixed."""
    check("".join(parts))


def test_a_readme_keeps_its_form_and_stands_below_the_page_s_headings() -> None:
    html = to_html("# Hello\n\nA *word* and a [link](https://acme.example).\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")
    assert "<h3>Hello</h3>" in html
    assert "<em>word</em>" in html
    assert '<a href="https://acme.example" rel="noopener noreferrer nofollow">link</a>' in html
    assert "<td>1</td>" in html


def test_a_picture_is_its_description_and_loads_nothing() -> None:
    """12-6: an image link with data in its query."""
    assert to_html("![a <b> chart](https://evil.example/?q=secret)") == "<p>a &lt;b&gt; chart</p>\n"


def test_a_text_that_is_too_long_to_parse_is_shown_as_it_is() -> None:
    """12-6: 1 MB without a newline."""
    html = to_html("<" * (MAX_CHARACTERS + 1))
    assert html.startswith("<pre>&lt;")
    assert "<<" not in html


def test_a_paragraph_that_would_take_seconds_is_shown_as_it_is() -> None:
    """12-6: the parser's time grows with the square of a paragraph's length."""
    html = to_html(f"*b*\n\n{'*a*<' * MAX_PARAGRAPH}\n\n*c*")
    assert html.split() == ["<p><em>b</em></p>", "<p>", f"{'*a*&lt;' * MAX_PARAGRAPH}</p>", "<p><em>c</em></p>"]
