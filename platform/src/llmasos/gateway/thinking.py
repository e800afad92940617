"""Takes the thinking out of a streamed answer whose server leaves it in the text, as `<think>…</think>` at its start.

litellm does so for whole answers. Some servers write the opening tag into the prompt, so that an answer has only the
closing one; litellm leaves that.
"""

from __future__ import annotations

from typing import Final

_OPENING: Final = "<think>"
_CLOSING: Final = "</think>"


def thought_first(text: str) -> tuple[str, str] | None:
    """What is said and what was thought, if an answer closes its thinking at the end of a line and never opened it."""
    thought, closing, said = text.partition(_CLOSING)
    if not closing or _OPENING in thought or said[:1] not in ("", "\r", "\n"):
        return None
    return said.lstrip("\r\n"), thought.strip()


class ThinkingApart:
    """Parts what is thought from what is said, however the pieces are cut.

    With `opened`, the model is known to think without an opening tag: its text is held back until the closing one.
    """

    def __init__(self, *, opened: bool = False) -> None:
        self._state = "start"
        self._opened = opened
        self._held = ""

    @property
    def held_characters(self) -> int:
        """How much is held back."""
        return len(self._held)

    def feed(self, text: str) -> tuple[str, str]:
        """Take a piece; return what of it is said, and what is thought."""
        if self._state == "said":
            return text, ""
        if self._state == "after":
            return self._without_blank_lines(text), ""
        self._held += text
        if self._state == "start":
            begin = self._held.lstrip()
            if len(begin) < len(_OPENING) and _OPENING.startswith(begin):
                return "", ""
            if not begin.startswith(_OPENING):
                return self._say_what_follows()
            self._state, self._held = "thinking", begin.removeprefix(_OPENING)
        thought, closing, said = self._held.partition(_CLOSING)
        if closing:
            self._state, self._held = "after", ""
            return self._without_blank_lines(said), thought
        # The closing tag may have begun.
        kept = next((n for n in range(len(_CLOSING) - 1, 0, -1) if thought.endswith(_CLOSING[:n])), 0)
        self._held = thought[len(thought) - kept :]
        return "", thought[: len(thought) - kept]

    def finish(self) -> tuple[str, str]:
        """Return what was held back, in the same way."""
        if self._state == "thinking":
            thought, self._held = self._held, ""
            return "", thought
        return self._say(), ""

    def _say_what_follows(self) -> tuple[str, str]:
        if not self._opened:
            return self._say(), ""
        # The closing tag is looked for where it may have come, since a long text is fed in thousands of pieces.
        if _CLOSING not in self._held or (parted := thought_first(self._held)) is None:
            return "", ""
        said, thought = parted
        self._state, self._held = "after", ""
        return self._without_blank_lines(said), thought

    def _without_blank_lines(self, text: str) -> str:
        """The first text after the thinking, without the blank lines between the two."""
        said = text.lstrip("\r\n")
        if said:
            self._state = "said"
        return said

    def _say(self) -> str:
        self._state, said, self._held = "said", self._held, ""
        return said
