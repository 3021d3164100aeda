"""What `top --prometheus` serves, read by Prometheus' own parsers."""

import http.client
import math
import os
import subprocess
import sys
import urllib.request

import polars as pl
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families
from prometheus_client.parser import text_string_to_metric_families as families

import ringtape
from ringtape import datasets
from ringtape.analysis.analyses.errors import errors
from ringtape.analysis.live.exporter import Exporter, parse_address
from ringtape.analysis.live.follower import Batch
from ringtape.analysis.live.metrics import BOUNDS, MOST, OTHER, PATIENCE, Metrics
from tests.factory import T0, make


def samples(text, parse=families):
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in parse(text) for one in family.samples}


def fetched(url, accept=""):
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=20) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


@pytest.fixture(scope="module")
def scraped():
    exporter = Exporter(datasets.path("git"), ("127.0.0.1", 0))
    try:
        yield {form: fetched(exporter.url, accept) for form, accept in (("text", ""), ("open", "application/openmetrics-text; version=1.0.0"))}
    finally:
        exporter.close()


@pytest.mark.parametrize(
    ("form", "parse", "kind"), [("text", families, "text/plain"), ("open", open_metrics_families, "application/openmetrics-text")]
)
def test_counts_are_those_of_the_trace(scraped, form, parse, kind):
    content, text = scraped[form]
    assert content.startswith(kind)
    found = samples(text, parse)
    trace = datasets.load("git")
    counted = {}
    for (name, labels), value in found.items():
        if name == "ringtape_syscalls_total":
            call = dict(labels)["syscall"]
            counted[call] = counted.get(call, 0) + value
    calls = trace.collect(trace.syscalls.filter(pl.col("kind") != 4).group_by("syscall").len())
    assert counted == dict(calls.rows())
    failed = {}
    for (name, labels), value in found.items():
        if name == "ringtape_syscall_errors_total":
            key = (dict(labels)["syscall"], dict(labels)["errno"])
            failed[key] = failed.get(key, 0) + value
    assert failed == {(call, errno): count for call, errno, count in errors(trace).select("syscall", "errno", "count").rows()}


def test_histograms_hold_every_call_that_returned_in_its_bucket(scraped):
    found = samples(scraped["text"][1])
    trace = datasets.load("git")
    mine = trace.collect(trace.syscalls.filter(pl.col("kind") == 0, pl.col("syscall") == "read", pl.col("comm") == "git").select("dur"))["dur"]
    pair = (("command", "git"), ("syscall", "read"))
    assert found["ringtape_syscall_duration_seconds_count", pair] == len(mine)
    assert math.isclose(found["ringtape_syscall_duration_seconds_sum", pair], mine.sum() / 1e9, rel_tol=1e-9)
    for bound in BOUNDS:
        told = next(
            value
            for (name, labels), value in found.items()
            if name == "ringtape_syscall_duration_seconds_bucket"
            and {**dict(labels), "le": ""} == {**dict(pair), "le": ""}
            and float(dict(labels)["le"]) == bound / 1e9
        )
        assert told == (mine <= bound).sum(), bound
    returned = trace.collect(trace.syscalls.filter(pl.col("kind") == 0).select(pl.len())).item()
    assert sum(value for (name, _), value in found.items() if name == "ringtape_syscall_duration_seconds_count") == returned


def test_names_of_processes_cannot_break_out_of_their_labels(tmp_path):
    hostile = b'a"} 1\nb\\\xff'
    trace = make(
        tmp_path / "hostile.trace",
        processes=[{"ts": T0, "kind": 2, "pid": 7, "comm": hostile, "file": b"/x", "argv": b"x\0"}],
        syscalls=[{"ts": T0 + 5, "nr": 0, "pid": 7, "dur": 100, "ret": -4}],
    )
    exporter = Exporter(trace, ("127.0.0.1", 0))
    try:
        text = exporter.exposition(False).decode()
    finally:
        exporter.close()
    names = {dict(labels)["command"] for name, labels in samples(text) if name == "ringtape_syscalls_total"}
    assert len(names) == 1
    assert "\n" not in names.pop()


def rows(pids, nr):
    return pl.DataFrame(
        {"pid": pids, "abi": [1] * len(pids), "nr": nr, "kind": [0] * len(pids), "ret": [0] * len(pids), "dur": [10] * len(pids)}
    ).cast({"pid": pl.Int32, "abi": pl.Int8, "nr": pl.Int32, "kind": pl.Int8, "ret": pl.Int64, "dur": pl.Int64})


def test_series_are_bounded_however_many_commands_there_are():
    metrics = Metrics("x86_64")
    metrics.feed([Batch("syscalls", rows(list(range(MOST + 500)), [0] * (MOST + 500)))])
    metrics.feed([Batch("syscalls", rows([MOST + 100], [0]))])
    metrics.settle()
    found = samples(metrics.exposition({}, True).decode())
    series = [labels for name, labels in found if name == "ringtape_syscalls_total"]
    assert len(series) == MOST + 1
    assert found["ringtape_syscalls_total", (("command", OTHER), ("syscall", "read"))] == 501
    assert sum(value for (name, _), value in found.items() if name == "ringtape_syscalls_total") == MOST + 501


def test_calls_that_come_before_the_name_of_their_process_are_counted_under_it():
    metrics = Metrics("x86_64")
    named = pl.DataFrame({"ts": [1], "pid": [7], "comm": [b"late"]})
    metrics.feed([Batch("syscalls", rows([7, 8], [0, 0]))])
    assert not [name for name, _ in samples(metrics.exposition({}, True).decode()) if name == "ringtape_syscalls_total"]
    metrics.feed([Batch("processes", named)])
    for _ in range(PATIENCE):
        metrics.feed([Batch("processes", named)])
    told = samples(metrics.exposition({}, True).decode())
    assert {dict(labels)["command"]: value for (name, labels), value in told.items() if name == "ringtape_syscalls_total"} == {"late": 1, "8": 1}


def test_counters_never_fall_from_one_scrape_to_the_next():
    metrics = Metrics("x86_64")
    before = {}
    for _ in range(3):
        metrics.feed([Batch("syscalls", rows([1, 2, 2], [0, 1, 1]))])
        metrics.settle()
        now = {
            key: value for key, value in samples(metrics.exposition({"paths": 3}, True).decode()).items() if key[0].endswith(("_total", "_bucket"))
        }
        assert all(now[key] >= value for key, value in before.items())
        before = now
    assert before["ringtape_lost_records_total", (("table", "paths"),)] == 3


def test_an_unknown_page_is_not_found_and_the_server_goes_on(tmp_path):
    exporter = Exporter(datasets.path("git"), ("127.0.0.1", 0))
    try:
        host = exporter.url.removeprefix("http://").partition("/")[0]
        for request, status in (
            (b"GET /secret HTTP/1.1\r\n\r\n", b"404"),
            (b"nonsense\r\n\r\n", b"400"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", b"501"),
        ):
            connection = http.client.HTTPConnection(host, timeout=20)
            connection.connect()
            connection.sock.sendall(request)
            assert status in connection.sock.recv(200)
            connection.close()
        assert "ringtape_syscalls_total" in fetched(exporter.url)[1]
    finally:
        exporter.close()


@pytest.mark.parametrize("address", ["", "x", "1.2.3.4", "1.2.3.4:x", "host:80", "127.0.0.1:99999", "[::1]"])
def test_what_is_no_address_is_one_error(address):
    with pytest.raises(ringtape.RingtapeError) as caught:
        parse_address(address)
    assert "9750" in caught.value.hint


def test_loopback_unless_another_address_is_named():
    assert [parse_address(text)[0] for text in ("9750", ":9750", "localhost:1")] == ["127.0.0.1"] * 3
    assert parse_address("0.0.0.0:9750") == ("0.0.0.0", 9750)


def test_an_address_in_use_is_one_error():
    exporter = Exporter(datasets.path("git"), ("127.0.0.1", 0))
    try:
        port = exporter.url.rpartition(":")[2].partition("/")[0]
        command = [sys.executable, "-c", "from ringtape.cli import main; main()", "top", datasets.path("git"), "--prometheus", port]
        done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=60, check=False)
        assert "address already in use" in done.stderr
        assert "hint: name another port" in done.stderr
    finally:
        exporter.close()
