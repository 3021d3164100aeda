"""The distance of two mixes, beside scipy and values worked out by hand."""

from __future__ import annotations

import json
import tempfile
from math import fsum, log2, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

import ringtape
from ringtape import cli
from ringtape.analysis.mix_distance import contributions, mix_distance
from ringtape.analysis.plots.mix import mix_difference
from ringtape.schemas.errors import RingtapeError, UsageError
from tests.factory import T0, make


def calls(**numbers: int) -> list[dict[str, Any]]:
    nrs = {"read": 0, "write": 1, "openat": 257}
    return [{"ts": T0 + at, "nr": nrs[name], "pid": 1, "dur": 10} for name, count in numbers.items() for at in range(count)]


def traces(tmp_path: Path, first: list[dict[str, Any]], second: list[dict[str, Any]]) -> tuple[ringtape.Trace, ringtape.Trace]:
    return ringtape.open(make(tmp_path / "a", syscalls=first)), ringtape.open(make(tmp_path / "b", syscalls=second))


def test_a_distance_worked_out_by_hand(tmp_path: Path) -> None:
    # Shares 1 and 0 against 1/2 and 1/2: m is 3/4 and 1/4.
    found = mix_distance(*traces(tmp_path, calls(read=4), calls(read=1, write=1)))
    read = (log2(4 / 3) + 0.5 * log2(2 / 3)) / 2
    write = 0.5 * log2(2) / 2
    assert found.contributions["group"].to_list() == ["write", "read"]
    assert found.contributions["contribution"].to_list() == pytest.approx([write, read])
    assert found.divergence == pytest.approx(read + write)
    assert found.distance == pytest.approx(sqrt(read + write))
    assert found.bias == pytest.approx(1 * (1 / 4 + 1 / 2) / (8 * np.log(2)))
    assert found.contributions.select("base", "other", "share_base", "share_other").rows() == [(0, 1, 0.0, 0.5), (4, 1, 1.0, 0.5)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1, max_size=30))
def test_contributions_are_not_negative_and_add_up_to_scipys_divergence(pairs: list[tuple[int, int]]) -> None:
    sides = np.array(pairs, np.float64).T
    if not sides.sum(axis=1).all():
        return
    p, q = (side / side.sum() for side in sides)
    parts = contributions(p, q)
    assert (parts >= 0).all()
    assert sqrt(min(1, fsum(parts))) == pytest.approx(float(jensenshannon(p, q, 2)), abs=2e-7)


@settings(max_examples=20, deadline=None)
@given(*[st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9))] * 2)
def test_two_traces_have_the_distance_of_their_counts(first: tuple[int, int, int], second: tuple[int, int, int]) -> None:
    names = ("read", "write", "openat")
    with tempfile.TemporaryDirectory() as folder:
        found = mix_distance(*traces(Path(folder), *(calls(**dict(zip(names, side, strict=True))) for side in (first, second))))
    assert found.divergence == fsum(found.contributions["contribution"])
    assert found.distance == pytest.approx(float(jensenshannon(first, second, 2)), abs=2e-7)


def test_the_same_mix_has_no_distance_and_nothing_in_common_has_all(tmp_path: Path) -> None:
    same = mix_distance(*traces(tmp_path, calls(read=2, write=4), calls(read=1, write=2)))
    assert (same.divergence, same.distance) == (0, 0)
    assert same.contributions["part"].to_list() == [0, 0]
    (tmp_path / "apart").mkdir()
    assert mix_distance(*traces(tmp_path / "apart", calls(read=2), calls(write=1))).distance == 1


def test_by_time_and_with_lost_calls(tmp_path: Path) -> None:
    first = [{"nr": 0, "pid": 1, "dur": 300}, {"nr": 1, "pid": 1, "dur": 100, "lost": True}]
    both = traces(tmp_path, first, [{"nr": 0, "pid": 1, "dur": 7}])
    by_time = mix_distance(*both, of="time")
    assert by_time.contributions.sort("group")["share_base"].to_list() == [0.75, 0.25]
    assert by_time.bias is None
    assert mix_distance(*both).contributions.sort("group")["share_base"].to_list() == [0.5, 0.5]


def test_two_windows_and_two_processes_of_one_trace(folder: Path) -> None:
    rows = [{"ts": T0 + at, "nr": at % 2 if at < 500 else 0, "pid": 1 + at % 2, "dur": 1} for at in range(1000)]
    events = [{"ts": T0, "pid": pid, "kind": 1, "comm": b"p%d" % pid} for pid in (1, 2)]
    trace = ringtape.open(make(folder, syscalls=rows, processes=events))
    found = mix_distance(trace.between("0ns", "500ns"), trace.between("500ns", "1us"))
    assert found.contributions.sort("group")["share_base"].to_list() == [0.5, 0.5]
    assert found.chance is not None
    assert found.distance is not None
    assert found.distance > found.chance
    assert found.p == 0.001
    assert mix_distance(trace.process("p1"), trace.process("p2"), by="command").distance == 1


def test_chance_covers_two_halves_of_the_same_phases(folder: Path) -> None:
    # Phases of 50 calls of one kind: independent draws would be far closer to each other than these halves are.
    generator = np.random.default_rng(1)
    kinds = np.repeat(generator.integers(0, 2, 80), 50)
    rows = [{"ts": T0 + at, "nr": int(nr), "pid": 1, "dur": 1} for at, nr in enumerate(kinds)]
    trace = ringtape.open(make(folder, syscalls=rows))
    found = mix_distance(trace.between("0ns", "2us"), trace.between("2us", "4us"))
    assert found.distance is not None
    assert found.chance is not None
    assert found.distance < found.chance
    assert found.bias is not None
    assert found.chance > 2 * sqrt(found.bias)


def test_a_side_without_calls_has_no_distance(tmp_path: Path) -> None:
    found = mix_distance(*traces(tmp_path, [], calls(read=1)))
    assert (found.divergence, found.distance, found.chance) == (None, None, None)
    assert found.contributions.select("group", "base", "other", "contribution").rows() == [("read", 0, 1, None)]
    assert mix_difference(found.contributions, found.distance).axes


def test_ten_thousand_calls_of_one_kind_need_no_picture_of_the_rest(tmp_path: Path) -> None:
    found = mix_distance(*traces(tmp_path, calls(read=100, write=1), calls(read=1, write=50)))
    assert len(mix_difference(found.contributions, found.distance).axes) == 2


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    both = traces(tmp_path, calls(read=1), calls(read=1))
    with pytest.raises(UsageError, match="'x'"):
        mix_distance(*both, of="x")  # type: ignore[arg-type]
    without = ringtape.open(make(tmp_path / "c", header={"tables": {"processes": "1.0"}}))
    with pytest.raises(RingtapeError, match="syscalls"):
        mix_distance(both[0], without)


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_the_verb(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first, second = traces(tmp_path, [*calls(read=3), {"nr": 0, "pid": 1, "lost": True}], calls(read=1, write=1))
    assert run("mix-distance", first.path, second.path, "--picture", tmp_path / "x.png") == 0
    found = capfd.readouterr()
    assert "distance 0.5579 of at most 1" in found.out
    assert "too short to tell" in found.out
    assert "1 record of syscalls lost; their calls are in the numbers" in found.err
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"
    assert run("mix-distance", first.path, second.path, "--format", "json") == 0
    assert {row["group"]: row["other"] for row in json.loads(capfd.readouterr().out)} == {"read": 1, "write": 1}
    assert run("mix-distance", first.path, second.path, "--strict") == 1
    assert run("mix-distance", first.path) == 2
    assert run("mix-distance", second.path, "--other-between", "1s,2s") == 0
    assert "the other side has no calls" in capfd.readouterr().err
