import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from ringtape.schemas.escape import escape


def undo(shown):
    """Read an escaped string back, byte for byte: what only an escape that never loses anything allows."""
    out, index = bytearray(), 0
    widths = {"x": 2, "u": 4, "U": 8}
    while index < len(shown):
        char = shown[index]
        if char != "\\":
            out += char.encode()
            index += 1
            continue
        kind = shown[index + 1]
        index += 2
        if kind in widths:
            code = int(shown[index : index + widths[kind]], 16)
            out += bytes([code]) if kind == "x" else chr(code).encode("utf-8", "surrogatepass")
            index += widths[kind]
        else:
            out += {"n": b"\n", "t": b"\t", "r": b"\r", "0": b"\0", "\\": b"\\"}[kind]
    return bytes(out)


@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_different_bytes_never_look_alike(raw):
    assert undo(escape(raw)) == raw


@given(st.text(st.characters(codec=None), max_size=60) | st.binary(max_size=60))
def test_nothing_that_could_steer_a_terminal_is_left(value):
    shown = escape(value)
    assert shown.isprintable() or all(unicodedata.category(char) in ("Zs", "Cn", "Co") or char.isprintable() for char in shown)
    assert len(shown.splitlines()) <= 1
    shown.encode()


def test_every_control_and_format_character_is_escaped():
    hidden = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    assert [char for char in hidden if escape(char) == char] == []


def test_examples():
    assert escape("plain/path-1_x.txt") == "plain/path-1_x.txt"
    assert escape(b"\x1b]0;title\x07\x9b31m") == "\\x1b]0;title\\x07\\x9b31m"
    assert escape("a\u202eb\u2028c\u200bd\ufeff") == "a\\u202eb\\u2028c\\u200bd\\ufeff"
    assert escape("C:\\n") == "C:\\\\n"
    assert escape("\U000e0041") == "\\U000e0041"
    assert escape("naïve 数据 🎉") == "naïve 数据 🎉"
