"""What of a server's text may reach a terminal: letters, and signs that only show themselves.

A control character, sent through, could move the cursor, rename the window, or forge a prompt; a direction mark could
turn a link around. Such characters are shown as escapes. Every text has a longest length, for a flood hides what
matters as well as a forgery does.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

LINE: Final = 300
"""Characters of a name, a title, a reason."""
BLOCK: Final = 6000
"""Characters of a question's text: two screens."""

_HARMLESS: Final = frozenset("\u200c\u200d\u00a0\u3000\u2002\u2003\u2009\u202f")
"""Joiners within words and emoji, and wide or narrow blanks: not printable by Python's rules, and harmless."""
_UNSAFE_IN_JSON: Final = re.compile(
    "[\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def line(text: object, limit: int = LINE) -> str:
    """`text` in one line: blanks of any kind are one blank."""
    given = str(text)
    joined = " ".join(given[: limit * 4].split())  # what is cut away need not be read
    return _shown(joined[:limit]) + _rest(len(given) if len(given) > limit * 4 else len(joined), limit)


def block(text: object, limit: int = BLOCK) -> str:
    """`text` with its line breaks."""
    lines = str(text).replace("\r\n", "\n").replace("\t", "    ")
    return whole(lines[:limit]) + _rest(len(lines), limit)


def whole(text: str) -> str:
    """As `block`, but however long it is: a result is what was asked for."""
    lines = text.replace("\r\n", "\n").replace("\t", "    ")
    return "".join(each if each == "\n" or _shows(each) else _escape(each) for each in lines)


def _shown(text: str) -> str:
    return "".join(each if _shows(each) else _escape(each) for each in text)


def _rest(length: int, limit: int) -> str:
    return f"… ({length - limit} more characters)" if length > limit else ""


def _shows(character: str) -> bool:
    return character.isprintable() or character in _HARMLESS


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def as_json(value: Any) -> str:
    """JSON that is safe to print: what a terminal might obey is escaped, as JSON itself allows."""
    return _UNSAFE_IN_JSON.sub(_json_escape, json.dumps(value, indent=2, ensure_ascii=False))


def _json_escape(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1]
