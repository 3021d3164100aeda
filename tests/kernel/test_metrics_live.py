"""Prometheus' counters of a recording that goes on, scraped while it does, against the finished trace."""

import subprocess
import sys
import threading
import urllib.request

import polars as pl
import pytest
from prometheus_client.parser import text_string_to_metric_families as families

import ringtape
from ringtape.analysis.live.exporter import Exporter
from tests.kernel.recording import ENVIRONMENT, RINGTAPE, SMALL_RINGS, wait_for

pytestmark = pytest.mark.kernel

PROGRAM = """
import os, sys
for _ in range(3):
    for number in range(20_000):
        os.getppid()
    try:
        os.open("/nowhere", os.O_RDONLY)
    except OSError:
        pass
    print("x", flush=True)
    sys.stdin.readline()
"""


def counted(text, name):
    sums = {}
    for family in families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels.get("command", "").startswith("python"):
                sums[sample.labels["syscall"]] = sums.get(sample.labels["syscall"], 0) + sample.value
    return sums


def test_what_is_scraped_while_it_runs_grows_and_ends_as_what_was_recorded(tmp_path):
    trace = tmp_path / "run.trace"
    command = [*RINGTAPE, "record", "-q", "-o", trace, *SMALL_RINGS, "--", sys.executable, "-I", "-S", "-c", PROGRAM]
    recorder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT, text=True)
    exporter = None
    try:
        seen = []
        for turn in range(1, 4):
            assert recorder.stdout.readline() == "x\n"
            exporter = exporter or Exporter(trace, ("127.0.0.1", 0))

            def scraped(turn=turn, exporter=exporter):
                exporter.look()
                with urllib.request.urlopen(exporter.url, timeout=20) as answer:
                    calls = counted(answer.read().decode(), "ringtape_syscalls_total")
                return calls if calls.get("getppid", 0) >= turn * 20_000 else None

            seen.append(wait_for(scraped, "the calls of this turn"))
            recorder.stdin.write("\n")
            recorder.stdin.flush()
        assert [calls["getppid"] for calls in seen] == [20_000, 40_000, 60_000]
        assert recorder.wait(60) == 0
        wait_for(lambda: (exporter.look(), exporter.ended)[1], "the end of the recording")
        text = exporter.exposition(False).decode()
    finally:
        if exporter:
            exporter.close()
        recorder.kill()
        recorder.communicate()
    done = ringtape.open(trace)
    ran = done.collect(done.syscalls.filter(pl.col("kind") != 4, pl.col("comm").str.starts_with("python")).group_by("syscall").len())
    told = counted(text, "ringtape_syscalls_total")
    # A process has one name here, the last; in the trace the calls before its execve have the name of that time.
    assert {call: told[call] for call in ("getppid", "openat", "read", "write", "close")} == {
        call: count for call, count in ran.rows() if call in ("getppid", "openat", "read", "write", "close")
    }
    assert {sample.value for family in families(text) for sample in family.samples if sample.name == "ringtape_recording_up"} == {0}


def test_the_verb_serves_until_the_recording_ends(tmp_path):
    trace = tmp_path / "run.trace"
    recorder = subprocess.Popen([*RINGTAPE, "record", "-q", "-o", trace, *SMALL_RINGS, "--", "cat"], stdin=subprocess.PIPE, env=ENVIRONMENT)
    try:
        wait_for(lambda: (trace / "manifest.jsonl").exists() and (trace / "manifest.jsonl").stat().st_size, "the trace")
        server = subprocess.Popen([*RINGTAPE, "top", trace, "--prometheus", "127.0.0.1:0"], stderr=subprocess.PIPE, env=ENVIRONMENT, text=True)
        # readline blocks: a server that never says where it is must not hold the test for ever.
        timer = threading.Timer(120, server.kill)
        timer.start()
        url = server.stderr.readline().split()[-1]
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url, timeout=20) as answer:
            assert "ringtape_recording_up 1" in answer.read().decode()
    finally:
        recorder.communicate()
    assert server.wait(60) == 0
    timer.cancel()
