"""The base of every error that refuses an input."""

from __future__ import annotations

MAX_CHARACTERS = 1500
_MARK = " [...] "


class RefusalError(ValueError):
    """Input that cannot be used. Its text goes to logs and diagnostics and may quote a stranger's bytes: so it is one
    line of printable characters, at most `MAX_CHARACTERS` of them, the middle left out where it would be longer.
    """

    def __init__(self, text: object = "") -> None:
        super().__init__(one_line(str(text)))


def one_line(text: str) -> str:
    """``text`` as a log line takes it: no line breaks, no control characters, no surrogates, not too long."""
    if len(text) > MAX_CHARACTERS:
        half = (MAX_CHARACTERS - len(_MARK)) // 2
        text = text[:half] + _MARK + text[-half:]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
