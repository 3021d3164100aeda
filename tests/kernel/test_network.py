"""Connections and transfers are recorded as the programs themselves, the kernel's counters and the other end know them."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections import Counter
from errno import ECONNREFUSED, ECONNRESET, ENOMEM, ETIMEDOUT
from pathlib import Path

import pytest

from tests.kernel.network import (
    KINDS,
    NETWORK,
    RECEIVE,
    SEND,
    STATE,
    address,
    lives,
    moved,
    path,
    received,
    said,
    sent,
    talker,
    words,
)
from tests.kernel.recording import Trace, ringtape, wait_for

COUNT = 500


@pytest.mark.parametrize("version", ["4", "6"])
def test_client_and_server_recorded_apart_tell_the_same_of_500_connections(record, start, version):
    with talker("serve", version, COUNT) as server:
        about = server.hear()
        beside = start(*NETWORK, "--pid", str(about["pid"])).wait_until_recording()
        done = record(*NETWORK, "--", *words("talk", version, about["port"], COUNT))
        server.tell()
        served = server.hear()
        server.process.wait()
        there = beside.wait().trace.check()
    here, talked = done.trace.check(), said(done.stdout)

    own = {cookie: rows for cookie, rows in lives(here).items() if rows[0]["peer_port"] == about["port"]}
    assert set(own) == {facts["socket"] for facts in talked}
    assert len(own) == COUNT
    for facts in talked:
        rows = own[facts["socket"]]
        assert path(rows) == ["SYN_SENT", "ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "CLOSE"]
        assert {address(row, end) for row in rows for end in ("local", "peer")} == {"127.0.0.1" if version == "4" else "::1"}
        last = rows[-1]
        assert (last["local_port"], last["peer_port"]) == (facts["local"], about["port"])
        assert (sent(last), received(last), last["fin"]) == (facts["sent"], facts["received"], 1)
        assert {row["pid"] for row in rows} == {here.rows("processes")[-1]["pid"]}

    theirs = lives(there)
    listener = theirs.pop(about["listener"])
    assert [row["kind"] for row in listener] == [KINDS["existing"], KINDS["state"]]
    assert listener[-1]["state"] == STATE["CLOSE"]
    assert set(theirs) == {facts["socket"] for facts in served}
    for facts in served:
        rows = theirs[facts["socket"]]
        assert path(rows) == ["ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "CLOSE"]
        assert [row["kind"] for row in rows].count(KINDS["accept"]) == 1
        assert {row["pid"] for row in rows} == {about["pid"]}
        assert (sent(rows[-1]), received(rows[-1])) == (facts["sent"], facts["received"])

    # The two recordings know nothing of each other, and say the same with the ends exchanged.
    mirrored = {(rows[-1]["peer_port"], sent(rows[-1]), received(rows[-1])) for rows in theirs.values()}
    assert mirrored == {(rows[-1]["local_port"], received(rows[-1]), sent(rows[-1])) for rows in own.values()}
    for trace, told in ((here, talked), (there, served)):
        totals = {direction: Counter() for direction in (SEND, RECEIVE)}
        for row in trace.rows("transfers"):
            totals[row["direction"]][row["socket"]] += max(row["result"], 0)
        for facts in told:
            assert (totals[SEND][facts["socket"]], totals[RECEIVE][facts["socket"]]) == (facts["sent"], facts["received"])


def test_a_refused_connection_says_so(record):
    done = record(*NETWORK, "--", *words("refused"))
    facts = said(done.stdout)
    assert facts["error"] == ECONNREFUSED
    rows = lives(done.trace.check())[facts["socket"]]
    assert path(rows) == ["SYN_SENT", "CLOSE"]
    assert rows[-1]["error"] == ECONNREFUSED
    assert KINDS["reset received"] in [row["kind"] for row in rows]
    assert rows[-1]["peer_port"] == facts["peer"]


def test_a_reset_shows_on_both_sides(record):
    done = record(*NETWORK, "--", *words("reset"))
    facts = said(done.stdout)
    assert facts["error"] == ECONNRESET
    trace = done.trace.check()
    found = lives(trace)
    closer, other = found[facts["closer"]["socket"]], found[facts["other"]["socket"]]
    # The receive that is told of the reset finds a closed socket, whose port is given back.
    told = [row for row in trace.rows("transfers") if row["socket"] == facts["other"]["socket"]]
    assert [(row["result"], row["local_port"]) for row in told] == [(10, other[0]["local_port"]), (-ECONNRESET, other[0]["local_port"])]
    assert other[0]["local_port"] > 0
    assert path(closer) == ["SYN_SENT", "ESTABLISHED", "CLOSE"]
    assert [row["kind"] for row in closer].count(KINDS["reset sent"]) == 1
    assert path(other) == ["ESTABLISHED", "CLOSE"]
    assert [row["kind"] for row in other].count(KINDS["reset received"]) == 1
    assert other[-1]["error"] == ECONNRESET
    assert (sent(closer[-1]), received(other[-1])) == (10, 10)


def test_a_connection_that_is_accepted_and_then_left_alone_belongs_to_the_server(start):
    with talker("idle") as server:
        about = server.hear()
        recorder = start(*NETWORK, "--pid", str(about["pid"])).wait_until_recording()
        with talker("hold", "4", about["port"], 0) as client:
            client.hear()
            facts = server.hear()
            trace = recorder.stop().trace.check()
    rows = lives(trace)[facts["socket"]]
    assert [row["kind"] for row in rows] == [KINDS["state"], KINDS["accept"], KINDS["open at detach"]]
    assert path(rows) == ["ESTABLISHED"]
    # The handshake ran in an interrupt: of the thread nothing is known before the accept.
    assert [(row["pid"], row["tid"]) for row in rows[:2]] == [(about["pid"], 0), (about["pid"], about["pid"])]
    assert not [row for row in trace.rows("sockets") if row["pid"] not in (about["pid"], 0)]


def test_the_process_that_accepts_is_told_apart_from_the_one_that_listens(start):
    with talker("prefork") as server:
        about = server.hear()
        child = wait_for(lambda: children_of(about["pid"]), "the server forks")[0]
        recorder = start(*NETWORK, "--pid", f"{about['pid']},{child}").wait_until_recording()
        with talker("hold", "4", about["port"], 0) as client:
            client.hear()
            facts = server.hear()
            assert facts["pid"] == child
            trace = recorder.stop().trace.check()
        os.kill(child, signal.SIGKILL)
    rows = {row["kind"]: row for row in lives(trace)[facts["socket"]]}
    assert (rows[KINDS["state"]]["pid"], rows[KINDS["state"]]["tid"]) == (about["pid"], 0)
    assert (rows[KINDS["accept"]]["pid"], rows[KINDS["accept"]]["tid"]) == (child, child)


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_what_is_open_at_the_end_has_the_totals_that_ss_shows(start):
    if shutil.which("ss") is None:
        pytest.skip("ss is not installed")
    with talker("held") as one:
        about = one.hear()
        recorder = start(*NETWORK, "--pid", str(about["pid"])).wait_until_recording()

        def quiet():
            shown = sockets_as_ss_shows_them(about["port"])
            return shown if all(entry.get("bytes_acked", 0) >= 1000 for entry in shown.values() if entry["state"] != "LISTEN") else None

        shown = wait_for(quiet, "everything is acknowledged")
        trace = recorder.stop().trace.check()
    found = {cookie: rows[-1] for cookie, rows in lives(trace).items()}
    expected = [about["listener"], *(end["socket"] for pair in about["pairs"] for end in pair)]
    assert set(found) == set(expected) == set(shown)
    for cookie, row in found.items():
        assert row["kind"] == KINDS["open at detach"]
        if cookie != about["listener"]:
            for name in ("bytes_sent", "bytes_acked", "bytes_received"):
                assert row[name] == shown[cookie].get(name, 0), name
    names = {number: name for name, number in STATE.items()}
    (one, other), (half, waiting) = about["pairs"]
    assert [names[found[end["socket"]]["state"]] for end in (one, other, half, waiting)] == ["ESTABLISHED", "ESTABLISHED", "FIN_WAIT2", "CLOSE_WAIT"]
    assert [(sent(found[end["socket"]]), received(found[end["socket"]])) for end in (one, other, half, waiting)] == [
        (1000, 5000), (5000, 1000), (1001, 5001), (5001, 1001),
    ]  # fmt: skip


def sockets_as_ss_shows_them(port):
    """Return, by cookie, state and byte counters of the connections of a port, as the kernel tells them by way of netlink."""
    lines = subprocess.run(["ss", "-tiaeHO", f"sport = :{port} or dport = :{port}"], capture_output=True, text=True, check=True).stdout.splitlines()
    found = {}
    for line in lines:
        cookie = int(re.search(r" sk:([0-9a-f]+)", line)[1], 16)
        found[cookie] = {"state": line.split()[0], **{name: int(value) for name, value in re.findall(r" (bytes_\w+):(\d+)", line)}}
    return found


def test_datagrams_and_unix_sockets_by_bytes(record):
    done = record(*NETWORK, "--", *words("datagrams"))
    facts = said(done.stdout)
    trace = done.trace.check()
    rows = trace.rows("transfers")

    def of(cookie, direction):
        return [row for row in rows if row["socket"] == cookie and row["direction"] == direction]

    first, second = (entry[0] for entry in facts["udp"])
    assert [row["result"] for row in of(first, SEND)] == [row["result"] for row in of(second, RECEIVE)] == [0, 1, 100, 60000]
    assert {(row["local_port"], row["protocol"], row["type"], row["pid"]) for row in of(second, RECEIVE)} == {
        (facts["udp"][1][2], 17, 2, facts["pid"])
    }
    sixth, seventh = (entry[0] for entry in facts["udp6"])
    assert [(row["result"], address(row, "peer"), row["peer_port"]) for row in of(sixth, SEND)] == [
        (7, "::1", facts["udp6"][1][2]),
        (70, "::1", facts["udp6"][1][2]),
    ]
    assert [(row["result"], row["flags"] & 2) for row in of(seventh, RECEIVE)] == [(7, 2), (7, 0), (70, 2), (70, 0)]
    assert facts["error"] == ECONNREFUSED
    assert [row["result"] for row in of(facts["lonely"][0], RECEIVE)] == [-ECONNREFUSED]
    assert (moved(trace, facts["stream"][0], SEND), moved(trace, facts["stream"][1], RECEIVE)) == (12345, 12345)
    assert {row["peer_low"] for row in of(facts["stream"][1], RECEIVE)} == {facts["stream"][0]}
    assert [row["result"] for row in of(facts["dgram"][0], SEND)] == [row["result"] for row in of(facts["dgram"][1], RECEIVE)] == [11, 22]
    # Each was made in the call that it says; the address given to sendto stands in `paths` under the same time.
    calls = {(call.tid, call.ts): call for call in trace.calls}
    for row in rows:
        if row["pid"] == facts["pid"]:
            call = calls[row["tid"], row["call"]]
            assert call.ts <= row["ts"] <= call.ts + call.dur
            assert call.ret == row["result"] or call.ret < 0
    named = {(row["tid"], row["ts"]): row["value"] for row in trace.rows("paths") if row["kind"] == 1}
    assert {named[row["tid"], row["call"]][2:4] for row in of(first, SEND)} == {facts["udp"][1][2].to_bytes(2, "big")}


def test_messages_have_their_peers_one_by_one(record, programs):
    done = record(*NETWORK, "--", programs("messages"))
    done.trace.check()
    expected = []
    for line in done.stdout.decode().splitlines():
        family, sender, receiver, count, size = map(int, line.split())
        host = "127.0.0.1" if family == socket.AF_INET else "[::1]"
        expected.append((f"{host}:{sender}", f"{host}:{receiver}", count, size, 0, 0))
        expected.append((f"{host}:{receiver}", f"{host}:{sender}", 0, 0, count, size))
    assert len(expected) == 24
    found = ringtape("udp", "--format", "json", done.path)
    names = ("local", "endpoint", "datagrams_sent", "bytes_sent", "datagrams_received", "bytes_received")
    assert sorted(tuple(row[name] for name in names) for row in json.loads(found.stdout)) == sorted(expected)


def test_dropped_datagrams_are_as_many_as_did_not_arrive(record):
    done = record(*NETWORK, "--", *words("overflow"))
    facts = said(done.stdout)
    drops = [row for row in done.trace.check().rows("sockets") if row["kind"] == KINDS["datagram dropped"]]
    assert 0 < facts["arrived"] < facts["sent"]
    assert len(drops) == facts["sent"] - facts["arrived"]
    assert {(row["socket"], row["length"], row["error"]) for row in drops} == {(facts["socket"], 500, ENOMEM)}


def test_sendfile_and_io_uring_are_transfers_and_splice_is_known_to_the_connection_only(record, tmp_path):
    big = tmp_path / "big"
    big.write_bytes(bytes(300_000))
    done = record(*NETWORK, "--", *words("files", big))
    facts = said(done.stdout)
    trace = done.trace.check()
    assert moved(trace, facts["sender"]["socket"], SEND) == facts["size"]
    assert moved(trace, facts["receiver"]["socket"], RECEIVE) == 0  # splice takes the pages away without a receive
    ends = lives(trace)
    assert sent(ends[facts["sender"]["socket"]][-1]) == received(ends[facts["receiver"]["socket"]][-1]) == facts["size"]


def test_io_uring_is_seen_on_the_spot_and_in_its_workers(record, programs):
    done = record(*NETWORK, "--", programs("uring"))
    if done.status == 77:
        pytest.skip("io_uring is not allowed here")
    facts = said(done.stdout)
    trace = done.trace.check()
    rows = [row for row in trace.rows("transfers") if row["socket"] in (facts["sender"], facts["receiver"])]
    assert Counter((row["socket"], row["direction"], row["result"]) for row in rows if row["result"] > 0) == {
        (facts["sender"], SEND, 1111): 1,
        (facts["sender"], SEND, 2222): 1,
        (facts["receiver"], RECEIVE, 1111): 1,
        (facts["receiver"], RECEIVE, 2222): 1,
    }
    assert {row["pid"] for row in rows} == {facts["pid"]}
    assert {row["tid"] == facts["pid"] for row in rows if row["result"] == 2222} == {False}
    # A worker makes no calls; what is done on the spot is part of io_uring_enter.
    assert {row["call"] == 0 for row in rows if row["tid"] != facts["pid"]} == {True}
    entered = {call.ts for call in trace.calls if call.nr == 426}
    assert {row["call"] for row in rows if row["tid"] == facts["pid"]} <= entered


def in_namespace(*arguments):
    """Return the command line that runs the program in a network namespace of its own."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("unshare or ip is not installed")
    return ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *words(*arguments)]


def test_every_row_names_the_network_namespace(record):
    done = record(*NETWORK, "--", *in_namespace("namespace"))
    facts = said(done.stdout)
    assert facts["netns"] != os.stat("/proc/self/ns/net").st_ino
    trace = done.trace.check()
    for name in ("sockets", "transfers"):
        rows = [row for row in trace.rows(name) if row["family"] == 10]
        assert rows
        assert {row["netns"] for row in rows} == {facts["netns"]}


def test_a_connection_into_a_black_hole_is_tried_again_and_times_out(record):
    done = record(*NETWORK, "--", *in_namespace("black_hole"))
    facts = said(done.stdout)
    assert facts["error"] == ETIMEDOUT
    count = facts["retransmitted"]  # one or two: Linux 6.5 has changed what TCP_SYNCNT counts
    rows = lives(done.trace.check())[facts["socket"]]
    assert [row["kind"] for row in rows] == [KINDS["state"], *[KINDS["retransmit"]] * count, KINDS["state"]]
    assert path(rows) == ["SYN_SENT", "CLOSE"]
    assert [rows[1][name] for name in ("state", "length", "error", "peer_port")] == [STATE["SYN_SENT"], 0, 0, 80]
    assert (address(rows[1], "local"), address(rows[1], "peer")) == ("10.9.0.1", "10.9.0.2")
    assert (rows[-1]["error"], rows[-1]["retrans"]) == (ETIMEDOUT, count)
    assert len({row["pid"] for row in rows} - {0}) == 1


def test_retransmissions_are_as_many_as_the_namespace_counts(record):
    done = record(*NETWORK, "--", *in_namespace("gap"))
    facts = said(done.stdout)
    rows = lives(done.trace.check())[facts["socket"]]
    again = [row for row in rows if row["kind"] == KINDS["retransmit"]]
    assert len(again) == facts["retransmitted"] >= 2
    assert {row["error"] for row in again} == {0}
    assert sum(row["length"] for row in again) == rows[-1]["bytes_retrans"]
    assert rows[-1]["retrans"] == facts["retransmitted"]
    assert sent(rows[-1]) == 2200
    assert {row["peer_port"] for row in again} == {facts["peer"]}


def test_with_rings_far_too_small_the_books_balance(record):
    done = record("--ring-size", "sockets=4K,transfers=4K,syscalls=8M,paths=8M,processes=8M", *NETWORK, "--", *words("many", "4", 2000))
    facts = said(done.stdout)
    trace = done.trace.check()
    assert trace.footer.lost["sockets"] > 0
    assert trace.footer.lost["transfers"] > 0
    # 2000 connections, both ends here: connect and its end, accept, close of one side and then of the other.
    recorded = sum(1 for row in trace.rows("sockets") if row["seq"] >= 0 and facts["port"] in (row["local_port"], row["peer_port"]))
    assert recorded + trace.footer.lost["sockets"] >= 2000 * 10
    assert recorded + trace.footer.lost["sockets"] <= 2000 * 10 + 50
    assert 2000 * 2 <= sum(trace.footer.attempted["transfers"].values()) < 2000 * 2 + 50


def test_of_the_whole_machine_both_ends_are_seen_and_everything_that_was_open(start):
    with talker("held") as one:
        about = one.hear()
        recorder = start(*NETWORK, "--all").wait_until_recording()
        with talker("serve", "4", 20) as server, talker("talk", "4", (there := server.hear())["port"], 20) as client:
            talked = client.hear()
            server.tell()
            served = server.hear()
            client.process.wait()
            server.process.wait()
        trace = recorder.stop().trace.check()
    found = lives(trace)
    assert {end["socket"] for end in (*talked, *served)} <= set(found)
    for end in talked:
        assert path(found[end["socket"]]) == ["SYN_SENT", "ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "CLOSE"]
    for end in served:
        assert path(found[end["socket"]]) == ["ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "CLOSE"]
        assert {row["pid"] for row in found[end["socket"]]} == {there["pid"]}
    for pair in about["pairs"]:
        for end in pair:
            assert [row["kind"] for row in found[end["socket"]]] == [KINDS["existing"], KINDS["open at detach"]]
            assert {row["pid"] for row in found[end["socket"]]} == {about["pid"]}


def test_a_recorder_that_is_killed_leaves_everything_to_recover(start, tmp_path):
    with talker("serve", "4", 50) as server:
        about = server.hear()
        recorder = start(*NETWORK, "--pid", str(about["pid"])).wait_until_recording()
        with talker("talk", "4", about["port"], 50) as client:
            client.hear()
        os.kill(recorder.pid, signal.SIGKILL)
        recorder.process.wait()
        server.tell()
        served = server.hear()
    done = ringtape("recover", recorder.path)
    assert done.status == 0, done.stderr
    trace = Trace(recorder.path)
    found = lives(trace)
    assert [sent(found[end["socket"]][-1]) for end in served] == [end["sent"] for end in served]
    assert all("CLOSE_WAIT" in path(found[end["socket"]]) for end in served)


def test_a_listener_that_the_command_inherits_is_its_own(start):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        recorder = start(*NETWORK, "--", *words("inherited"), stdin=listener.fileno()).wait_until_recording()
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(b"hello")
            done = recorder.wait()
    facts = said(done.stdout)
    trace = done.trace.check()
    rows = lives(trace)[facts["socket"]]
    assert path(rows)[0] == "ESTABLISHED"
    assert [row["pid"] for row in rows if row["kind"] == KINDS["accept"]] == [facts["pid"]]
    assert received(rows[-1]) == facts["received"] == 5


def test_every_thread_of_a_crowd_is_listed_when_it_is_attached(start):
    with talker("crowd", 700) as crowd:
        about = crowd.hear()
        trace = start("--pid", str(about["pid"])).wait_until_recording().stop().trace.check()
    # More than the kernel's buffer for an iterator holds: it runs the program again for the row that did not fit.
    assert len({row["tid"] for row in trace.rows("processes") if row["pid"] == about["pid"]}) == 701
