"""The line that a person sees, and the counts in it."""

import io
import os

import pytest

from ringtape.recorder import progress
from ringtape.recorder.progress import Progress, count


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (1000, "1.00k"),
        (1234, "1.23k"),
        (12_345, "12.3k"),
        (123_456, "123k"),
        (1_234_567, "1.23M"),
        (4_300_000_000, "4.30G"),
        (2e12, "2.00e+12"),
    ],
)
def test_counts_have_three_digits_and_a_unit(value, text):
    assert count(value) == text


class Terminal(io.StringIO):
    def __init__(self, terminal=True, broken=False):
        super().__init__()
        self.terminal, self.broken = terminal, broken

    def isatty(self):
        return self.terminal

    def fileno(self):
        raise OSError(25, "not a terminal")

    def write(self, text):
        if self.broken:
            raise OSError(5, "the terminal is gone")
        return super().write(text)


@pytest.fixture
def screen(monkeypatch):
    def show(**options):
        made = Terminal(**options)
        monkeypatch.setattr(progress.sys, "stderr", made)
        return made

    return show


def test_the_line_tells_elapsed_events_rate_lost_size_and_cost(screen):
    shown = screen()
    Progress(True).update(1_500_000, 0, 3 << 20)
    text = shown.getvalue()
    for word in ("00:00:00", "1.50M events", "/s", "lost 0"):
        assert word in text
    assert "\n" not in text


def test_the_line_never_wraps_at_the_edge_of_the_terminal(screen, monkeypatch):
    shown = screen()
    monkeypatch.setattr(progress, "_width", lambda: 40)
    Progress(True).update(1, 0, 0)
    assert len(shown.getvalue().removeprefix("\r").removesuffix("\x1b[K")) <= 39


def test_it_is_redrawn_four_times_a_second_at_most(screen, monkeypatch):
    shown = screen()
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    line = Progress(True)
    for _ in range(100):  # a second, in hundredths
        clock[0] += 0.01
        line.update(1, 0, 0)
    assert 3 <= shown.getvalue().count("\r") <= 5


def test_it_disappears_before_a_note_and_at_the_end(screen):
    shown = screen()
    line = Progress(True)
    line.update(1, 0, 0)
    line.note("the command has ended")
    assert shown.getvalue().endswith("\r\x1b[Kringtape: the command has ended\n")
    line.clear()
    line.clear()
    assert shown.getvalue().count("\r\x1b[K") == 2


@pytest.mark.parametrize(("enabled", "terminal"), [(False, True), (True, False)])
def test_it_is_silent_when_asked_to_be_and_where_there_is_no_terminal(screen, enabled, terminal):
    shown = screen(terminal=terminal)
    line = Progress(enabled)
    line.update(1, 0, 0)
    line.clear()
    assert shown.getvalue() == ""


def test_a_terminal_that_goes_away_ends_the_line_and_not_the_recording(screen):
    shown = screen()
    line = Progress(True)
    shown.broken = True
    line.update(1, 0, 0)
    line.note("still here")
    line.clear()


def test_the_width_is_the_terminal_s_or_80(monkeypatch, screen):
    screen()
    assert progress._width() == 80
    monkeypatch.setattr(progress.sys.stderr, "fileno", lambda: 2)
    monkeypatch.setattr(os, "get_terminal_size", lambda descriptor: os.terminal_size((132, 40)))
    assert progress._width() == 132
