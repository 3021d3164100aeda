"""Comparisons of real recordings: the same program against itself, against one that is changed, and where calls were lost."""

import json

import pytest

from ringtape.cli import main
from tests.kernel.recording import Recorder

LEVEL = "0.9999"
"""So sure that a machine that is noisy by chance does not fail the test once in ten thousand runs."""
RUNS = 3
COPY = ("dd", "if=/dev/zero", "of=/dev/null")


def recorded(path, *arguments):
    with Recorder(path, arguments) as recorder:
        assert recorder.wait().status == 0
    return path


def compared(capsys, base, other, *options):
    status = main(["compare", *map(str, base), "--with", *map(str, other), "--format", "json", *options])
    output = capsys.readouterr()
    return status, {(row["measure"], row["what"]): row for row in json.loads(output.out or "[]")}, output.err


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """Runs of three sides, one after the other: twice the same program, and one that moves the same bytes by a tenth of the calls."""
    folder = tmp_path_factory.mktemp("studied")
    sides = {"a": "count=2000", "b": "count=2000", "c": "count=200"}
    for number in range(RUNS):
        for side, count in sides.items():
            recorded(folder / f"{side}{number}.trace", "--", *COPY, "bs=1000" if side != "c" else "bs=10000", count)
    return {side: sorted(folder.glob(f"{side}*.trace")) for side in sides}


def test_a_program_against_itself_shows_no_difference(studied, capsys):
    status, rows, _ = compared(capsys, studied["a"], studied["b"], "--level", LEVEL, "--measures", "all")
    assert status == 0
    assert len(rows) > 40
    assert {row["verdict"] for row in rows.values()} == {"no difference shown"}
    assert rows["calls", "read"]["base"] == rows["calls", "read"]["other"] >= 2000


def test_a_program_that_makes_fewer_calls_is_found(studied, capsys):
    status, rows, _ = compared(capsys, studied["a"], studied["c"], "--level", LEVEL, "--fail-if", "fewer")
    assert status == 3
    assert {what: rows["calls", what]["verdict"] for what in ("read", "write", "openat")} == {
        "read": "fewer",
        "write": "fewer",
        "openat": "no difference shown",
    }
    assert rows["calls", "write"]["base"] - rows["calls", "write"]["other"] == 1800


def test_lost_calls_are_compared_exactly_and_refused_where_that_is_asked(studied, tmp_path, capsys):
    lossy = [recorded(tmp_path / f"{number}.trace", "--ring-size", "64K", "--", *COPY, "bs=1", "count=200000") for number in range(2)]
    whole = studied["a"][:2]
    for sides in ((whole, lossy), (lossy, whole)):
        status, rows, errors = compared(capsys, *sides, "--strict")
        assert (status, rows) == (1, {})
        assert "records of syscalls lost" in errors
        assert "leave --strict out" in errors
    assert compared(capsys, whole, studied["b"][:2], "--strict")[0] == 0
    status, rows, errors = compared(capsys, whole, lossy)
    assert status == 0
    assert errors.count("records of syscalls lost") == len(lossy)
    # dd makes one read and one write for each block; the loader and the locale make some reads of their own, as many in every run.
    assert rows["calls", "read"]["other"] - rows["calls", "read"]["base"] == 200_000 - 2000
