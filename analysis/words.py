"""Command lines as people read them."""

from __future__ import annotations

from collections.abc import Iterable

from ringtape.schemas.escape import escape


def words(argv: Iterable[str | bytes]) -> str:
    r"""Return words in one line, escaped, those with blanks in quotes, so that they can be told apart.

    >>> words(["sh", "-c", "echo 'a b'", "", b"\xff"])
    'sh -c "echo \'a b\'" \'\' \\xff'
    """
    return " ".join(_word(word) for word in argv)


def _word(word: str | bytes) -> str:
    text = escape(word)
    if word and " " not in text and "'" not in text:
        return text
    return "'" + text.replace("'", "\\x27") + "'" if "'" not in text or '"' in text else f'"{text}"'
