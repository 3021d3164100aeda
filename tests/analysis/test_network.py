"""Connections, throughput, retransmissions and datagrams, worked out by hand."""

import struct

import pytest

import ringtape
from ringtape.analysis.addresses import endpoint, host
from ringtape.analysis.analyses.net_throughput import net_throughput, pictures
from ringtape.analysis.analyses.retransmits import retransmits
from ringtape.analysis.analyses.tcp_life import tcp_life
from ringtape.analysis.analyses.udp import udp
from ringtape.analysis.registry import get
from ringtape.schemas.errors import RingtapeError, UsageError
from tests.factory import T0, make

HERE, THERE = 0x0A000001, 0x0A000002
NS = 4026531833
STATE, RETRANSMIT, SYNACK, RESET_SENT, RESET_RECEIVED, ACCEPT, DROP, EXISTING, OPEN = range(9)
ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, CLOSE, CLOSE_WAIT, LAST_ACK, LISTEN = 1, 2, 3, 4, 5, 7, 8, 9, 10
SEND, RECEIVE = 0, 1


def row(at, socket, kind=STATE, old=0, state=0, **more):
    """A row of a connection from 10.0.0.1:1000 + socket to 10.0.0.2:80."""
    ends = {"local_low": HERE, "local_port": 1000 + socket, "peer_low": THERE, "peer_port": 80}
    given = {"family": 2, "protocol": 6, "netns": NS, "rtt_min": -1, "fd": -1, **ends, **more}
    return {"ts": T0 + at, "socket": socket, "kind": kind, "old": old, "state": state, **given}


def incoming(at, socket, *args, **more):
    return row(at, socket, *args, **{"local_low": HERE, "local_port": 22, "peer_low": THERE, "peer_port": 5000 + socket, **more})


def born(pid, comm, at=0):
    return {"ts": T0 + at, "kind": 0, "pid": pid, "tid": pid, "comm": comm}


PROCESSES = [born(10, b"client"), born(20, b"sshd"), born(21, b"sshd-child"), {**born(10, b"renamed", 5000), "kind": 2}]


def life(path, **tables):
    return tcp_life(ringtape.open(make(path, processes=PROCESSES, **tables)))


def test_a_connect_from_its_syn_to_its_end(folder):
    found = life(
        folder,
        sockets=[
            row(100, 1, STATE, CLOSE, SYN_SENT, pid=10, tid=10, local_port=0),
            row(150, 1, STATE, SYN_SENT, ESTABLISHED, pid=10, tid=10, bytes_acked=1, srtt=45),
            row(900, 1, STATE, ESTABLISHED, FIN_WAIT1, pid=10, tid=10, bytes_sent=500, bytes_acked=501, bytes_received=70, srtt=50, rtt_min=40),
            # 40 bytes were dropped on the machine itself and counted twice: what is acknowledged holds, less the SYN and the FIN.
            row(950, 1, STATE, FIN_WAIT1, FIN_WAIT2, pid=10, tid=10, bytes_sent=540, bytes_acked=502, bytes_received=70, srtt=50, rtt_min=40),
            row(1100, 1, STATE, FIN_WAIT2, CLOSE, pid=10, tid=10, bytes_sent=540, bytes_acked=502, bytes_received=71, fin=1, srtt=60, rtt_min=40),
        ],
    )
    assert found.to_dicts() == [
        {
            "process": 10, "command": "client", "way": "out", "local": "10.0.0.1:1001", "peer": "10.0.0.2:80", "start": T0 + 100,
            "sent": 500, "received": 70, "setup": 50, "accept": None, "duration": 1000, "end": "closed", "state": None,
            "retransmits": 0, "rtt": 60, "rtt_min": 40, "older": 0, "netns": None, "socket": 1,
        }
    ]  # fmt: skip


def test_an_accepted_connection_belongs_to_the_process_that_accepted_it(folder):
    (found,) = life(
        folder,
        sockets=[
            incoming(100, 2, STATE, SYN_RECV, ESTABLISHED, pid=20, tid=0, srtt=7),
            incoming(130, 2, ACCEPT, ESTABLISHED, ESTABLISHED, pid=21, tid=21, fd=5),
            incoming(400, 2, STATE, ESTABLISHED, CLOSE_WAIT, pid=20, tid=20, bytes_received=11, fin=1, bytes_sent=4, bytes_acked=4),
            incoming(500, 2, STATE, CLOSE_WAIT, LAST_ACK, pid=20, tid=20, bytes_received=11, fin=1, bytes_sent=4, bytes_acked=4),
            incoming(600, 2, STATE, LAST_ACK, CLOSE, pid=20, tid=20, bytes_received=11, fin=1, bytes_sent=4, bytes_acked=5),
        ],
    ).to_dicts()
    assert (found["process"], found["command"], found["way"]) == (21, "sshd-child", "in")
    assert (found["setup"], found["accept"], found["duration"], found["end"]) == (7, 30, 500, "closed")
    assert (found["sent"], found["received"]) == (4, 10)
    assert (found["local"], found["peer"]) == ("10.0.0.1:22", "10.0.0.2:5002")


@pytest.mark.parametrize(
    ("last", "more", "end"),
    [
        ({"error": 111}, [], "refused"),
        ({"error": 110}, [], "timed out"),
        ({"error": 113}, [], "unreachable"),
        ({"error": 999}, [], "error 999"),
        ({"error": 71}, [], "EPROTO"),
        ({}, [], "given up"),
        ({}, [row(205, 1, RESET_RECEIVED, SYN_SENT, SYN_SENT)], "reset"),
    ],
)
def test_how_a_connect_failed(folder, last, more, end):
    rows = [row(100, 1, STATE, CLOSE, SYN_SENT, pid=10, tid=10), row(200, 1, STATE, SYN_SENT, CLOSE, pid=10, tid=10, **last), *more]
    (found,) = life(folder, sockets=rows).to_dicts()
    assert (found["end"], found["setup"], found["duration"], found["way"]) == (end, None, 100, "out")


def test_a_reset_names_who_was_reset_and_who_aborted(folder):
    found = life(
        folder,
        sockets=[
            row(100, 1, STATE, CLOSE, SYN_SENT, pid=10, tid=10),
            row(110, 1, STATE, SYN_SENT, ESTABLISHED, pid=10, tid=10),
            row(200, 1, RESET_SENT, ESTABLISHED, ESTABLISHED, pid=10, tid=10),
            row(210, 1, STATE, ESTABLISHED, CLOSE, pid=10, tid=10, bytes_sent=10, bytes_acked=1),
            incoming(105, 2, STATE, SYN_RECV, ESTABLISHED, pid=20, tid=0),
            incoming(202, 2, RESET_RECEIVED, ESTABLISHED, ESTABLISHED, pid=20, tid=0),
            incoming(203, 2, STATE, ESTABLISHED, CLOSE, pid=20, tid=0, error=104, bytes_received=10),
        ],
    )
    # Nothing of the ten bytes was acknowledged: they count as they were given to the network.
    assert found.select("end", "sent", "received").rows() == [("aborted", 10, 0), ("reset", 0, 10)]


def test_what_is_open_at_the_end_or_older_than_the_recording(folder):
    found = life(
        folder,
        sockets=[
            incoming(5, 1, EXISTING, ESTABLISHED, ESTABLISHED, pid=20, bytes_sent=100, bytes_received=50, segs_out=3),
            incoming(10**9, 1, OPEN, ESTABLISHED, ESTABLISHED, pid=20, bytes_sent=120, bytes_received=60, seq=-1),
            row(100, 2, STATE, CLOSE, SYN_SENT, pid=10, tid=10, local_port=0),
            row(200, 3, STATE, CLOSE, SYN_SENT, pid=10, tid=10),
            row(210, 3, STATE, SYN_SENT, ESTABLISHED, pid=10, tid=10),
            row(300, 3, STATE, ESTABLISHED, FIN_WAIT1, pid=10, tid=10),
            row(7, 4, EXISTING, LISTEN, LISTEN, pid=20, peer_low=0, peer_port=0),
            row(400, 5, STATE, CLOSE, LISTEN, pid=20, peer_low=0, peer_port=0),
        ],
    )
    assert found.select("socket", "way", "older", "sent", "received", "end", "state", "local").rows() == [
        (1, None, 1, 120, 60, "open: ESTABLISHED", "ESTABLISHED", "10.0.0.1:22"),
        (2, "out", 0, 0, 0, "open: SYN_SENT", "SYN_SENT", "10.0.0.1:0"),
        (3, "out", 0, 0, 0, "open: FIN_WAIT1", "FIN_WAIT1", "10.0.0.1:1003"),
    ]
    assert found["duration"].to_list() == [10**9 - 5, 10**9 - 100, 10**9 - 200]


def test_a_socket_that_connects_again_is_another_connection(folder):
    found = life(
        folder,
        sockets=[
            row(100, 1, STATE, CLOSE, SYN_SENT, pid=10, tid=10),
            row(150, 1, STATE, SYN_SENT, CLOSE, pid=10, tid=10, error=111),
            row(6000, 1, STATE, CLOSE, SYN_SENT, pid=10, tid=10, peer_port=81),
            row(6100, 1, STATE, SYN_SENT, ESTABLISHED, pid=10, tid=10, peer_port=81),
            row(6200, 1, STATE, ESTABLISHED, CLOSE, pid=10, tid=10, peer_port=81, bytes_sent=3),
        ],
    )
    assert found.select("start", "peer", "end", "command", "sent").rows() == [
        (T0 + 100, "10.0.0.2:80", "refused", "client", 0),
        (T0 + 6000, "10.0.0.2:81", "closed", "renamed", 3),
    ]


def test_with_losses_an_end_that_was_not_seen_is_unknown(folder):
    found = life(
        folder,
        sockets=[
            row(100, 1, STATE, CLOSE, SYN_SENT, pid=10, tid=10),
            row(150, 1, STATE, SYN_SENT, ESTABLISHED, pid=10, tid=10),
            row(200, 2, STATE, CLOSE, SYN_SENT, pid=10, tid=10),
            row(250, 2, STATE, SYN_SENT, ESTABLISHED, pid=10, tid=10, seq=None, lost=True),
            row(10**9, 1, OPEN, ESTABLISHED, ESTABLISHED, pid=10, tid=10),
        ],
    )
    assert found.select("socket", "end").rows() == [(1, "open: ESTABLISHED"), (2, "unknown")]


def test_namespaces_are_told_where_there_are_several(folder, tmp_path):
    rows = [row(100, 1, STATE, CLOSE, SYN_SENT), row(100, 2, STATE, CLOSE, SYN_SENT, netns=5)]
    assert life(folder, sockets=rows)["netns"].to_list() == [NS, 5]
    assert life(tmp_path / "one", sockets=rows[:1])["netns"].to_list() == [None]


def test_results_of_an_empty_trace_have_their_columns(folder):
    trace = ringtape.open(make(folder, processes=[], sockets=[], transfers=[]))
    for name in ("tcp_life", "net_throughput", "retransmits", "udp"):
        result = get(name).function(trace)
        assert len(result) == 0
        assert [column.name for column in get(name).columns] == [column for column in result.columns if column in {c.name for c in get(name).columns}]


@pytest.mark.parametrize("name", ["tcp_life", "net_throughput", "retransmits", "udp"])
def test_a_trace_without_the_table_says_how_to_record_it(folder, name):
    trace = ringtape.open(make(folder, header={"tables": {"processes": "1.0"}}, processes=[]))
    with pytest.raises(RingtapeError) as caught:
        get(name).function(trace)
    assert f"--tables {get(name).tables[0]}" in caught.value.hint


def transfer(at, result, direction=SEND, **more):
    ends = {"local_low": HERE, "local_port": 1000, "peer_low": THERE, "peer_port": 80}
    given = {"family": 2, "protocol": 6, "type": 1, "pid": 10, "socket": 1, "netns": NS, **ends, **more}
    return {"ts": T0 + at, "result": result, "direction": direction, **given}


SECOND = 10**9
TRANSFERS = [
    transfer(SECOND // 10, 1000),
    transfer(SECOND // 10 + 1, 300, RECEIVE),
    transfer(SECOND // 10 + 2, 300, RECEIVE, flags=2),  # looked at: comes again
    transfer(SECOND // 10 + 3, -11, RECEIVE),
    transfer(SECOND * 8 // 10, 500),
    transfer(SECOND * 9 // 10, 7, RECEIVE, peer_low=THERE + 1),
    transfer(SECOND * 9 // 10, 64, family=1, protocol=0, local_low=0, peer_low=77, peer_port=0, local_port=0, pid=20),
    transfer(SECOND * 9 // 10 + 1, 36, family=1, protocol=0, local_low=0, peer_low=78, peer_port=0, local_port=0, pid=20),
]


def test_bytes_and_rates_by_process_and_peer(folder):
    trace = ringtape.open(make(folder, processes=PROCESSES, transfers=TRANSFERS))
    found = net_throughput(trace)
    # The recording lasts one second, so that bytes and bytes per second are the same.
    assert found.drop("length").rows() == [
        (10, "renamed", "TCP", "10.0.0.2", 0, 1500, 300, 1500.0, 300.0, 2, 1, 1),
        (20, "sshd", "Unix", None, 0, 100, 0, 100.0, 0.0, 2, 0, 0),
        (10, "renamed", "TCP", "10.0.0.3", 0, 0, 7, 0.0, 7.0, 0, 1, 0),
    ]
    assert found["length"].to_list() == [SECOND] * 3


def test_bytes_over_time(folder):
    trace = ringtape.open(make(folder, processes=PROCESSES, transfers=TRANSFERS))
    found = net_throughput(trace, by="command", step=0.4)
    # The last stretch has 0.2 s of the recording.
    assert found.select("begin", "length", "command", "sent", "received", "sent_per_s").rows() == [
        (0, 4 * SECOND // 10, "renamed", 1000, 300, 2500.0),
        (8 * SECOND // 10, 2 * SECOND // 10, "renamed", 500, 7, 2500.0),
        (8 * SECOND // 10, 2 * SECOND // 10, "sshd", 100, 0, 500.0),
    ]


@pytest.mark.parametrize("arguments", [{"by": "colour"}, {"by": ()}, {"by": ("peer", "peer")}, {"step": -1.0}, {"step": 1e-9}])
def test_what_cannot_be_told_apart_is_refused(folder, arguments):
    trace = ringtape.open(make(folder, processes=[], transfers=TRANSFERS))
    with pytest.raises(UsageError):
        net_throughput(trace, **arguments)


def test_the_picture_of_throughput_is_drawn_also_of_nothing(folder, tmp_path):
    (drawn,) = pictures(ringtape.open(make(folder, processes=PROCESSES, transfers=TRANSFERS)))
    assert drawn.figure.axes[0].get_ylabel() in ("B/s", "KiB/s")
    (drawn,) = pictures(ringtape.open(make(tmp_path / "none", processes=[], transfers=[])))
    assert drawn.figure.axes[0].texts[0].get_text() == "nothing was sent or received"


def test_retransmissions_by_process_and_peer(folder):
    trace = ringtape.open(
        make(
            folder,
            processes=PROCESSES,
            sockets=[
                row(100, 1, STATE, CLOSE, SYN_SENT, pid=10, tid=10),
                row(200, 1, RETRANSMIT, SYN_SENT, SYN_SENT, pid=10, tid=10, segs_out=2),
                row(300, 1, STATE, SYN_SENT, ESTABLISHED, pid=10, tid=10, segs_out=3),
                row(400, 1, RETRANSMIT, ESTABLISHED, ESTABLISHED, pid=10, tid=10, length=1000, segs_out=6),
                row(500, 1, RETRANSMIT, ESTABLISHED, ESTABLISHED, pid=10, tid=10, length=1000, error=105, segs_out=6),
                row(600, 1, STATE, ESTABLISHED, CLOSE, pid=10, tid=10, segs_out=12),
                incoming(700, 2, SYNACK, LISTEN, LISTEN, pid=20),
            ],
        )
    )
    assert retransmits(trace).rows() == [
        (10, "client", "10.0.0.2:80", 3, 1, 0, 2, 2000, 1, 1, 12, 0.25, T0 + 200, T0 + 500),
        (20, "sshd", "10.0.0.2:5002", 1, 0, 1, 0, 0, 0, 1, 0, None, T0 + 700, T0 + 700),
    ]


def sockaddr(address, port):
    return struct.pack("<H", 2) + struct.pack(">HI", port, address) + bytes(8)


def datagram(at, result, direction=SEND, **more):
    return transfer(at, result, direction, **{"protocol": 17, "type": 2, "peer_low": 0, "peer_port": 0, "local_port": 53, "local_low": 0, **more})


def test_datagrams_by_peer_errors_and_drops(folder):
    trace = ringtape.open(
        make(
            folder,
            processes=PROCESSES,
            transfers=[
                datagram(110, 0, call=T0 + 100),
                datagram(210, 40, RECEIVE, call=T0 + 200),
                datagram(310, 50, RECEIVE, call=T0 + 300, tid=11),  # another thread at the same time as a call of the first
                datagram(410, -11, RECEIVE, call=T0 + 400),
                datagram(500, 9, peer_low=THERE, peer_port=99, local_port=1234, socket=7),
                datagram(510, -111, RECEIVE, peer_low=THERE, peer_port=99, local_port=1234, socket=7),
            ],
            paths=[
                {"ts": T0 + 100, "pid": 10, "nr": 44, "kind": 1, "arg": 4, "value": sockaddr(THERE, 5353)},
                {"ts": T0 + 200, "pid": 10, "nr": 45, "kind": 1, "arg": 4, "value": sockaddr(THERE, 5353)},
                {"ts": T0 + 300, "pid": 10, "nr": 45, "kind": 1, "arg": 4, "value": sockaddr(THERE, 4444)},
                {"ts": T0 + 400, "pid": 10, "nr": 45, "kind": 1, "arg": 4, "value": b"\x02"},
            ],
            sockets=[row(600, 1, DROP, CLOSE, CLOSE, protocol=17, pid=10, tid=10, local_low=0, local_port=53, peer_low=0, peer_port=0)],
        )
    )
    here, other = "0.0.0.0:53", "0.0.0.0:1234"
    assert udp(trace).rows() == [
        (10, "client", here, None, 0, 0, 1, 50, 1, 0, "", 1),
        (10, "client", here, "10.0.0.2:5353", 1, 0, 1, 40, 0, 0, "", 0),
        (10, "client", other, "10.0.0.2:99", 1, 9, 0, 0, 0, 1, "ECONNREFUSED 1", 0),
    ]


def batch(*addresses):
    return b"".join(struct.pack("<I", len(address)) + address.ljust(28, b"\0") for address in addresses)


MESSAGES = (sockaddr(THERE, 1), sockaddr(THERE, 2), b"", sockaddr(THERE, 1))


@pytest.mark.parametrize("lost", [0, 1])
def test_each_message_of_a_call_for_many_has_its_own_peer_unless_transfers_were_lost(folder, lost):
    same = batch(*[sockaddr(THERE, 7)] * 3)
    trace = ringtape.open(
        make(
            folder,
            processes=PROCESSES,
            transfers=[
                *(datagram(110 + at, 10**at, call=T0 + 100) for at in range(4)),
                *(datagram(210 + at, 5, RECEIVE, call=T0 + 200) for at in range(3)),
                datagram(310, 70, RECEIVE, call=T0 + 300),  # recvmsg
            ],
            paths=[
                {"ts": T0 + 100, "pid": 10, "nr": 307, "kind": 3, "arg": 1, "value": batch(*MESSAGES)},
                {"ts": T0 + 200, "pid": 10, "nr": 299, "kind": 3, "arg": 1, "value": same},
                {"ts": T0 + 300, "pid": 10, "nr": 47, "kind": 1, "arg": 1, "value": sockaddr(THERE, 8)},
            ],
            footer={"lost": {"transfers": lost}},
        )
    )
    found = {row["endpoint"]: (row["bytes_sent"], row["bytes_received"]) for row in udp(trace).to_dicts()}
    certain = {"10.0.0.2:7": (0, 15), "10.0.0.2:8": (0, 70)}
    if lost:
        assert found == {**certain, None: (1111, 0)}
    else:
        assert found == {**certain, "10.0.0.2:1": (1001, 0), "10.0.0.2:2": (10, 0), None: (100, 0)}


def test_without_the_table_sockets_drops_are_not_known(folder):
    tables = {"processes": "1.0", "transfers": "1.0"}
    trace = ringtape.open(make(folder, header={"tables": tables}, processes=PROCESSES, transfers=[datagram(1, 5)]))
    assert udp(trace).select("endpoint", "bytes_sent", "dropped").rows() == [(None, 5, None)]


def test_the_frames_of_a_trace_name_their_ends(folder):
    six = {"family": 10, "local_high": 0x2001_0DB8 << 32, "local_low": 1, "peer_high": 0, "peer_low": 0xFFFF_0A00_0001}
    trace = ringtape.open(make(folder, processes=[], transfers=[transfer(1, 1), transfer(2, 1, **six)]))
    assert trace.transfers.select("local", "peer", "protocol_name", "direction_name").collect().rows() == [
        ("10.0.0.1:1000", "10.0.0.2:80", "TCP", "send"),
        ("[2001:db8::1]:1000", "10.0.0.1:80", "TCP", "send"),
    ]


def test_addresses_of_other_families_are_none():
    assert host(1, 2, 1) is None
    assert endpoint(1, 2, 3, 16) is None
    assert host(0, -1, 2) == "255.255.255.255"
    assert host(-1, -1, 10) == "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
