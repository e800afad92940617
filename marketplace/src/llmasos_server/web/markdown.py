"""Markdown that others wrote, as HTML that loads nothing, runs nothing and leads nowhere by itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Final

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererProtocol
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup, escape

# A text above this is shown as it is: parsing 200,000 characters of short list items takes 2 s.
MAX_CHARACTERS: Final = 50_000
# So is a paragraph above this, since the parser's time grows with the square of its length. Of the worst paragraphs,
# brackets, a whole text takes half a second.
MAX_PARAGRAPH: Final = 3000
_TAGS: Final = {
    *("p", "br", "hr", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "em", "strong"),
    *("s", "a", "table", "thead", "tbody", "tr", "th", "td"),
}
_ATTRIBUTES: Final = {"a": {"href", "title"}, "ol": {"start"}}
_LAST_HEADING: Final = 6


@lru_cache(maxsize=64)
def to_html(text: str, *, below: int = 2) -> Markup:
    """Render Markdown.

    HTML in it is shown as text, a picture as its description; a link leads to other sites only, if it is followed.

    Args:
        text: The Markdown.
        below: The level of the heading that it stands under: its own begin one level lower.
    """
    text = text.encode(errors="replace").decode()  # half of a pair of surrogates is in no HTML
    if len(text) > MAX_CHARACTERS:
        return Markup("<pre>{}</pre>").format(text)
    parser = _parser()
    tokens = parser.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1:]) + below, _LAST_HEADING)}"
    html = str(parser.renderer.render(tokens, parser.options, {}))
    # The second barrier: what the parser lets through by mistake is removed here.
    clean = nh3.clean(
        html,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        # What scrolls sideways is reached by the keyboard.
        set_tag_attribute_values={"pre": {"tabindex": "0"}, "table": {"tabindex": "0"}},
        url_schemes={"http", "https", "mailto"},
        # A relative address would be one of our own pages.
        url_relative="deny",
        link_rel="noopener noreferrer nofollow",
    )
    return Markup(clean)  # noqa: S704 - it was cleaned above


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    parser.add_render_rule("image", _described)
    parser.core.ruler.before("inline", "long", _leave_long_paragraphs)
    return parser


def _leave_long_paragraphs(state: StateCore) -> None:
    for token in state.tokens:
        if token.type == "inline" and len(token.content) > MAX_PARAGRAPH:
            token.type = "text"


def _described(
    _renderer: RendererProtocol, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    """A picture as its description: loading it would tell its server who reads, and what."""
    return str(escape(tokens[index].content))
