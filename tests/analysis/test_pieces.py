"""A table taken some rows at a time is the table, and an export does not tell in what pieces it was read."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as proto

import ringtape
from ringtape.analysis import pieces as module
from ringtape.analysis.pieces import batches, pieces
from ringtape.cli import main
from ringtape.schemas.errors import RingtapeError
from tests.factory import T0, make

FAMILIES = "datasets/families.trace"
rows = st.lists(st.fixed_dictionaries({"dur": st.integers(0, 99), "pid": st.sampled_from([10, 11])}), max_size=40)


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(1, 4), st.integers(1, 50), st.integers(0, 45), st.integers(0, 45), st.booleans())
def test_pieces_are_the_rows_in_their_order(found: list[dict[str, Any]], parts: int, size: int, low: int, high: int, some: bool) -> None:
    with tempfile.TemporaryDirectory() as folder, patch.object(module, "AT_ONCE", size):
        trace = ringtape.open(make(Path(folder) / "t", syscalls=found, parts=parts))
        trace = trace.between(low, low + high + 1) if high else trace
        trace = trace.process(11) if some else trace
        expected = trace.collect(trace.scan("syscalls"))
        several = [trace.collect(piece.scan("syscalls")) for piece in pieces(trace, "syscalls")]
        assert all(len(piece) <= size for piece in several)
        assert pl.concat([expected.clear(), *several]).equals(expected)
        made = list(batches(trace, "syscalls", lambda piece: piece.frame("syscalls").select("ts", "syscall")))
        assert pl.concat([trace.frame("syscalls").select("ts", "syscall").collect().clear(), *made])["ts"].equals(expected["ts"])
        # The other tables of a piece are those of the trace.
        assert all(piece.collect(piece.scan("processes")).equals(trace.collect(trace.scan("processes"))) for piece in pieces(trace, "syscalls"))


def test_only_what_lies_in_the_window_is_read(folder: Path) -> None:
    trace = ringtape.open(make(folder, syscalls=[{"ts": T0 + at} for at in range(100)], parts=5)).between(42, 44)
    with patch.object(module, "AT_ONCE", 10):
        assert len(list(pieces(trace, "syscalls"))) == 1


def test_a_table_that_was_not_recorded_is_refused() -> None:
    with pytest.raises(RingtapeError, match="block"):
        list(pieces(ringtape.open("datasets/demo.trace"), "block"))


def _export(form: str, file: Path, *more: str) -> bytes:
    assert main(["export", FAMILIES, "--format", form, "--output", str(file), *more]) == 0
    return file.read_bytes()


@pytest.mark.parametrize(
    ("form", "more"), [("csv", ()), ("jsonl", ("--table", "paths")), ("csv", ("--table", "signal:signal_generate")), ("chrome", ())]
)
def test_an_export_is_the_same_in_pieces(form: str, more: tuple[str, ...], tmp_path: Path) -> None:
    whole = _export(form, tmp_path / "whole", *more)
    with patch.object(module, "AT_ONCE", 331):
        assert _export(form, tmp_path / "pieces", *more) == whole


def _told(data: bytes) -> list[str]:
    """Every event of a Perfetto trace with its texts in the place of their numbers, in the order of text."""
    texts: dict[int, Any] = {}
    told = []
    for packet in proto.Trace.FromString(data).packet:
        for kind in ("event_names", "event_categories", "debug_annotation_names"):
            texts |= {entry.iid: entry.name for entry in getattr(packet.interned_data, kind)}
        texts |= {entry.iid: entry.str for entry in packet.interned_data.debug_annotation_string_values}
        told += [f"{packet.ftrace_events.cpu} {event}" for event in packet.ftrace_events.event]
        event = packet.track_event
        if packet.HasField("track_event"):
            notes = [(texts[note.name_iid], texts.get(note.string_value_iid), note.int_value) for note in event.debug_annotations]
            flows = [*event.flow_ids, *event.terminating_flow_ids]
            title = texts.get(event.name_iid), [texts[iid] for iid in event.category_iids]
            told.append(repr((packet.timestamp, event.type, event.track_uuid, title, notes, flows, event.counter_value)))
    return sorted(told)


def test_perfettos_events_are_the_same_in_pieces(tmp_path: Path) -> None:
    whole = _told(_export("perfetto", tmp_path / "whole"))
    with patch.object(module, "AT_ONCE", 331):
        assert _told(_export("perfetto", tmp_path / "pieces")) == whole
    assert len(whole) > 16_000
