"""What a terminal sends, as names of keys."""

import pytest

from ringtape.analysis.live.keys import LONGEST, Keys


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1b[B\x1bOC\x1bOD", ["up", "down", "right", "left"]),
        (b"\r\n\t\x7f", ["enter", "enter", "tab", "backspace"]),
        ("/é".encode(), ["/", "é"]),
        (b"\x1b[1;5Aq", ["q"]),  # Ctrl-up has no name here, and leaves no letter behind
        (b"\x1b[200~", []),
        (b"\x1bq", ["escape", "q"]),
        (b"\xff\x00a", ["a"]),
    ],
)
def test_keys_have_names_and_sequences_without_one_leave_nothing_behind(sent: bytes, named: list[str]) -> None:
    assert Keys().feed(sent) == named


def test_a_sequence_that_comes_byte_by_byte_is_one_key() -> None:
    keys = Keys()
    assert [keys.feed(bytes([byte])) for byte in b"\x1b[5~"] == [[], [], [], ["page up"]]
    assert not keys.pending


def test_a_letter_of_two_bytes_may_come_in_two_pieces() -> None:
    keys = Keys()
    assert keys.feed("é".encode()[:1]) + keys.feed("é".encode()[1:]) == ["é"]


def test_a_lone_escape_is_a_key_once_nothing_follows_it() -> None:
    keys = Keys()
    assert keys.feed(b"\x1b") == []
    assert keys.pending
    assert keys.flush() == ["escape"]
    assert keys.flush() == []


def test_a_sequence_without_end_is_not_waited_for() -> None:
    keys = Keys()
    assert "escape" in keys.feed(b"\x1b[" + b"1;" * LONGEST)
    assert not keys.pending
