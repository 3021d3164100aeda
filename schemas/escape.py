"""One way to show strings that came from elsewhere: nothing in them reaches a terminal as a command."""

from __future__ import annotations

import re

# C0 and C1 controls, DEL, what has no width, line and paragraph separators, bidirectional and other format controls
# (category Cf), and lone surrogates (which stand for bytes that are not UTF-8).
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f\\\\]"
)
_STEERING = re.compile(_UNSAFE.pattern.replace("\\\\", ""))
_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\", "\x1b": "\\x1b", "\0": "\\0"}


def _replace(match: re.Match[str]) -> str:
    char = match[0]
    if char in _SHORT:
        return _SHORT[char]
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # PEP 383: the byte itself
        return f"\\x{code - 0xDC00:02x}"
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"


def escape(value: str | bytes) -> str:
    r"""Return the value on one line, with everything that could steer a terminal shown as an escape.

    Bytes that are not UTF-8 appear as ``\xNN``; a backslash is doubled, so that different values never look alike.

    >>> escape(b"caf\xc3\xa9 \xff\n\x1b[31m")
    'café \\xff\\n\\x1b[31m'
    """
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
    return _UNSAFE.sub(_replace, text)


def harmless(text: str) -> str:
    r"""Return a text for people with whatever could steer a terminal shown as an escape; what `escape` returned stays as it is.

    >>> harmless(escape("a\\b")), harmless("\x1b]0;x")
    ('a\\\\b', '\\x1b]0;x')
    """
    return _STEERING.sub(_replace, text)
