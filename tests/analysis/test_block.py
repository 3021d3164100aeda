"""Analyses of block I/O, against values worked out by hand and against a plain reckoning of random requests."""

import random
from itertools import pairwise

import polars as pl
import pytest

import ringtape
from ringtape.analysis import pictures, registry
from ringtape.analysis.analyses.block_latency import block_latency
from ringtape.analysis.analyses.block_pattern import addresses, block_pattern, depth_over_time, request_sizes
from ringtape.analysis.requests import Requests, at_once, follow_each_other, lost_requests, slices
from ringtape.analysis.verification import verify
from ringtape.schemas.errors import RingtapeError, UsageError
from tests.factory import T0, make

COMPLETE, AT_ATTACH, MERGED, UNFINISHED, END_UNSEEN = range(5)
READ, WRITE, FLUSH = range(3)
PREFLUSH = 1 << 10
END = T0 + 10**9


def request(at, issue=10, service=90, operation=READ, sector=0, size=4096, **more):
    dur = issue + service if issue >= 0 and service >= 0 else more.pop("dur")
    return {
        "ts": T0 + at, "dur": dur, "issue": issue, "service": service, "insert": -1, "operation": operation, "sector": sector, "bytes": size,
        "disk": b"vda", "dev": 254 << 20, "pid": 100, **more,
    }  # fmt: skip


def opened(folder, *rows, **more):
    return ringtape.open(make(folder, block=rows, **more))


def test_queue_device_and_total_time_stand_apart(folder):
    trace = opened(
        folder, request(0, 10, 100), request(1000, 20, 400), request(2000, 30, 300), request(3000, 5, 50, WRITE), request(4000, 7, 60, disk=b"sda")
    )
    found = block_latency(trace)
    assert found.select("device", "operation", "stage", "requests", "time", "p50", "p90", "max").rows() == [
        ("vda", "READ", "queue", 3, 60, 20, 30, 30),
        ("vda", "READ", "device", 3, 800, 300, 400, 400),
        ("vda", "READ", "total", 3, 860, 330, 420, 420),
        ("sda", "READ", "queue", 1, 7, 7, 7, 7),
        ("sda", "READ", "device", 1, 60, 60, 60, 60),
        ("sda", "READ", "total", 1, 67, 67, 67, 67),
        ("vda", "WRITE", "queue", 1, 5, 5, 5, 5),
        ("vda", "WRITE", "device", 1, 50, 50, 50, 50),
        ("vda", "WRITE", "total", 1, 55, 55, 55, 55),
    ]
    assert found["lost"].sum() == found["failed"].sum() == found["untimed"].sum() == 0
    assert block_latency(trace, device="sda")["device"].unique().to_list() == ["sda"]


def test_a_flush_that_is_asked_for_has_a_total_only_and_the_kernels_own_no_queue_time(folder):
    trace = opened(
        folder,
        request(0, -1, -1, WRITE, size=0, flags=PREFLUSH | 8, dur=500),
        request(100, 0, 300, FLUSH, sector=-1, size=0, pid=9),
        request(200, 10, 20, WRITE, flags=PREFLUSH, size=512),
    )
    found = block_latency(trace, by=["operation"])
    assert found.select("operation", "stage", "requests", "untimed", "p50").rows() == [
        ("FLUSH", "device", 1, 0, 300),
        ("FLUSH", "total", 1, 0, 300),
        ("FLUSH asked", "total", 1, 0, 500),
        ("WRITE", "queue", 1, 0, 10),
        ("WRITE", "device", 1, 0, 20),
        ("WRITE", "total", 1, 0, 30),
    ]


def test_what_has_no_whole_time_is_counted_and_left_out(folder):
    trace = opened(
        folder,
        request(0, 10, 90),
        request(10, 5, -1, kind=UNFINISHED, dur=1000),
        request(20, -1, -1, kind=MERGED, dur=3),
        request(-50, 5, 60, kind=AT_ATTACH),
        request(40, 5, -1, kind=END_UNSEEN, dur=700),
        request(50, 6, 30, status=10),
    )
    found = block_latency(trace)
    assert found.select("stage", "requests", "untimed", "failed", "max").rows() == [
        ("queue", 2, 3, 1, 10),
        ("device", 2, 3, 1, 90),
        ("total", 2, 3, 1, 100),
    ]


def test_lost_requests_make_quantiles_intervals_that_hold_the_truth(folder):
    times = [(10, 100), (20, 200), (30, 300), (40, 400), (50, 500)]
    lost = {0, 4}
    rows = [request(1000 * number, *both, size=512 * (number + 1), **({"lost": True} if number in lost else {})) for number, both in enumerate(times)]
    trace = opened(folder, *rows)
    assert lost_requests(trace).rows() == [(64, 127, 1), (512, 1023, 1)]
    for row in block_latency(trace).iter_rows(named=True):
        truth = sorted({"queue": queue, "device": device, "total": queue + device}[row["stage"]] for queue, device in times)
        assert (row["requests"], row["lost"]) == (3, 2)
        assert row["p50"] is None
        assert row["p50_low"] <= truth[2] <= row["p50_high"]
        assert row["max_low"] <= truth[4] <= row["max_high"]
        assert row["max_high"] == 1023
    (row,) = block_pattern(trace).iter_rows(named=True)
    # Of five, of which two can have had any size, or of fewer that belong to the group.
    assert (row["requests"], row["lost"], row["size"], row["size_low"], row["size_high"]) == (3, 2, None, 1024, 2048)


def test_of_requests_that_found_no_room_in_flight_nothing_is_known(folder):
    loss = {"ts": T0, "until": T0, "count": 2, "sum": 0, "nr": -1, "cpu": 0, "abi": 0, "bucket": 0, "cause": 1, "table": "block"}
    trace = opened(folder, request(0), losses=[loss])
    assert lost_requests(trace).rows() == [(0, (1 << 63) - 1, 2)]
    assert set(block_latency(trace)["lost"]) == {2}


def test_sizes_order_and_depth(folder):
    trace = opened(
        folder,
        request(0, 0, 1000, sector=800, size=4096),
        request(100, 0, 1000, sector=808, size=8192),  # follows
        request(200, 0, 100, sector=0, size=4096),  # does not
        request(5000, 0, 1000, sector=8, size=16384),  # follows
        request(6000, 1000, 500, WRITE, sector=40, size=512),
        request(6100, -1, -1, WRITE, sector=41, size=512, kind=MERGED, dur=10),
        request(8000, 5, -1, WRITE, sector=41, size=512, kind=UNFINISHED, dur=10**9 - 8000),
        footer={"detached_at": END},
    )
    reads, writes = block_pattern(trace).iter_rows(named=True)
    assert {name: reads[name] for name in ("requests", "bytes", "smallest", "size", "largest", "sequential", "share_sequential")} == {
        "requests": 4, "bytes": 32768, "smallest": 4096, "size": 4096, "largest": 16384, "sequential": 2, "share_sequential": 2 / 3,
    }  # fmt: skip
    # Busy from 0 to 1100 and from 5000 to 6000.
    assert (reads["highest"], reads["busy"], reads["depth"]) == (3, 2100, 3100 / 2100)
    assert reads["utilisation"] == pytest.approx(2100 / 10**9)
    assert (writes["requests"], writes["merged"], writes["bytes"], writes["highest"]) == (1, 1, 512, 1)
    assert writes["share_sequential"] is None
    assert writes["busy"] == 500 + 10**9 - 8005


def test_streams_that_take_turns_are_sequential_when_told_apart(folder):
    rows = [request(10 * number, sector=8 * (number // 2) + (10_000 if number % 2 else 0), tid=200 + number % 2) for number in range(10)]
    trace = opened(folder, *rows)
    assert block_pattern(trace)["sequential"].to_list() == [0]
    assert block_pattern(trace, by="thread").select("thread", "sequential", "share_sequential").rows() == [(200, 4, 1.0), (201, 4, 1.0)]


def test_partitions_flags_commands_and_unknown_codes_have_names(folder):
    trace = opened(
        folder,
        request(0, disk=b"nvme0n1", partition=2, flags=8 | 2048, tid=101),
        request(10, disk=b"vda", partition=1, operation=13, pid=0),
        processes=[{"ts": T0 - 10, "pid": 100, "tid": 101, "comm": b"dd", "start": 1, "kind": 2}],
    )
    found = block_pattern(trace, by=["partition", "operation", "flags", "process", "command"])
    assert found.select("partition", "operation", "flags", "process", "command").rows() == [
        ("nvme0n1p2", "READ", "sync readahead", 100, "dd"),
        ("vda1", "operation 13", "", None, "?"),
    ]


def test_codes_of_other_kernels_are_no_damage(folder):
    trace = opened(folder, request(0, operation=11, status=17))
    assert verify(trace.path).problems == []
    assert trace.collect(trace.block.select("operation_name", "status_name")).row(0) == ("operation_11", "status_17")


def test_a_group_that_does_not_exist_is_refused(folder):
    trace = opened(folder, request(0))
    with pytest.raises(UsageError, match="cannot be told apart by 'syscall'"):
        block_latency(trace, by="syscall")
    with pytest.raises(UsageError, match="by is"):
        block_pattern(trace, by=[])
    with pytest.raises(UsageError, match="no request of device 'sdz'") as refused:
        block_pattern(trace, device="sdz")
    assert "vda" in refused.value.hint


@pytest.mark.parametrize("most", [1, 3, 1000])
def test_what_is_reckoned_piece_by_piece_is_what_a_plain_reckoning_gives(folder, most):
    chosen = random.Random(7)
    rows = []
    for _ in range(60):
        at, issue, service = chosen.randrange(0, 9000), chosen.randrange(0, 300), chosen.randrange(1, 2500)
        follows = rows and chosen.random() < 0.4
        sector = rows[-1]["sector"] + rows[-1]["bytes"] // 512 if follows else chosen.randrange(0, 1 << 20)
        rows.append(
            request(at, issue, service, chosen.choice([READ, WRITE]), sector, 512 * chosen.randrange(1, 9), disk=chosen.choice([b"vda", b"sda"]))
        )
    trace = opened(folder, *rows, parts=4, footer={"detached_at": T0 + 10_000})
    requests = Requests.of(trace, ("device", "operation"))
    edges = list(slices(trace, most))
    assert all(left[1] == right[0] for left, right in pairwise(edges))
    if most == 1:
        assert len(edges) > 20

    def group(row):
        return row["disk"], row["operation"]

    kept = sorted(rows, key=lambda row: row["ts"])  # the factory numbers rows of a time in their order, as this does
    expected = {}
    for key in {group(row) for row in rows}:
        own = [row for row in kept if group(row) == key]
        expected[key] = len(own) - 1, sum(left["sector"] + left["bytes"] // 512 == right["sector"] for left, right in pairwise(own))
    found = follow_each_other(requests, most=most)
    assert {(disk, operation): (followers, sequential) for disk, operation, followers, sequential in found.iter_rows()} == expected

    for stage in ("device", "queue"):
        for windows in (0, 7):
            spans = {}
            for row in rows:
                start = row["ts"] + (row["issue"] if stage == "device" else 0)
                spans.setdefault(group(row), []).append((start - T0, start - T0 + (row["service"] if stage == "device" else row["issue"])))
            width = -(-10_000 // max(1, windows))
            plain = {}
            for key, own in spans.items():
                depth = [sum(start <= moment < stop for start, stop in own) for moment in range(10_000)]
                for window in range(max(1, windows)):
                    inside = depth[window * width : (window + 1) * width]
                    if max(inside, default=0):
                        plain[*key, window] = sum(inside), sum(one > 0 for one in inside), max(inside)
            found = at_once(requests, stage, windows=windows, most=most)
            assert {row[:3]: row[3:] for row in found.iter_rows()} == plain


def test_frames_for_pictures(folder):
    trace = opened(folder, request(0, 100, 200, sector=8), request(500, 0, 100, WRITE, sector=16, size=6000), footer={"detached_at": T0 + 1000})
    depth = depth_over_time(trace, windows=4)
    assert depth.select("begin", "end", "device_mean", "device_highest", "queue_mean", "queue_highest").rows() == [
        (0, 250, 150 / 250, 1, 100 / 250, 1),
        (250, 500, 50 / 250, 1, 0, 0),
        (500, 750, 100 / 250, 1, 0, 0),
        (750, 1000, 0, 0, 0, 0),
    ]
    assert request_sizes(trace).rows() == [("vda", "READ", 12, 1, 4096), ("vda", "WRITE", 12, 1, 6000)]
    # The middle of the first of 240 columns of 3 ns, and of that in which 500 lies.
    assert addresses(trace, b"vda").rows() == [("READ", 1.5, 0, 4096, 4096, 1), ("WRITE", 499.5, 1, 8192, 4096, 1)]


def test_addresses_leave_out_what_is_not_used(folder):
    far = 1 << 30
    trace = opened(folder, *(request(at * 1000, sector=(at % 2) * far + 8 * at) for at in range(300)))
    found = addresses(trace, b"vda")
    assert found["length"].unique().to_list() == [8 * 512 * 4]  # 1200 KiB in each of two places: 2 * 75 rows of 16 KiB
    assert found["row"].n_unique() == 150
    assert (found["row"].min(), found["row"].max(), found["count"].sum()) == (0, 149, 300)
    assert set(found.filter(pl.col("row") < 75)["address"] < far) == {True}
    assert found.filter(pl.col("row") == 75)["address"][0] == far * 512


def test_pictures_are_drawn_with_and_without_requests(folder, tmp_path):
    names = ["block-latency", "block-latency-heat-map", "block-depth", "block-sizes", "block-addresses"]
    for number, trace in enumerate(
        (opened(folder, *(request(at * 1000, at + 1, 50 * at + 1) for at in range(50))), opened(tmp_path / "empty.trace"))
    ):
        drawn = {name: found for name, found in pictures.draw(trace).items() if name.startswith("block")}
        files = list(pictures.save(drawn, tmp_path / str(number)))
        assert [file.stem for file in files] == names
        assert all(file.stat().st_size > 5000 for file in files)


@pytest.mark.parametrize("name", ["block_latency", "block_pattern"])
def test_an_empty_trace_gives_no_row_and_the_declared_columns(folder, name):
    analysis = registry.get(name)
    found = analysis.function(opened(folder))
    assert len(found) == 0
    assert found.schema == analysis.schema(["device", "operation"])


def test_without_the_table_the_error_says_how_to_record_it(folder):
    trace = ringtape.open(make(folder, header={"tables": {"syscalls": "1.1"}}))
    with pytest.raises(RingtapeError, match="table 'block' was not recorded") as refused:
        block_latency(trace)
    assert "--tables block" in refused.value.hint


def test_sums_are_64_bits_wide(folder):
    trace = opened(folder, *(request(at, size=1 << 30, sector=at * 8) for at in range(5)))
    assert block_pattern(trace)["bytes"].to_list() == [5 << 30]
    assert block_pattern(trace).schema["bytes"] == pl.Int64
