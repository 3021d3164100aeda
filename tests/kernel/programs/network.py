"""Talks to itself and to others over sockets, and says at the end, as JSON, what it did: cookies, ports and bytes as it counted them."""

import contextlib
import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time

SO_COOKIE = 57
LOOPBACK = {"4": (socket.AF_INET, "127.0.0.1"), "6": (socket.AF_INET6, "::1")}


def cookie(one):
    return int.from_bytes(one.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), sys.byteorder)


def ends(one):
    return {"socket": cookie(one), "local": one.getsockname()[1], "peer": one.getpeername()[1]}


def say(*lines):
    print(json.dumps(lines[0] if len(lines) == 1 else lines), flush=True)


def until_told():
    """Wait for the end of standard input, or for a line on it."""
    return sys.stdin.readline()


def read_all(one):
    total = 0
    while data := one.recv(65536):
        total += len(data)
    return total


def listen(version, port=0):
    family, host = LOOPBACK[version]
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(64)
    return listener


def dial(version, port):
    family, host = LOOPBACK[version]
    one = socket.socket(family)
    one.connect((host, port))
    return one


def serve(version, count):
    """Answer each connection with twice as many bytes as came, and one more; the peer ends first."""
    listener = listen(version)
    say({"pid": os.getpid(), "port": listener.getsockname()[1], "listener": cookie(listener)})
    told = []
    for _ in range(int(count)):
        one, _ = listener.accept()
        facts = ends(one)
        received = read_all(one)
        one.sendall(bytes(2 * received + 1))
        one.close()
        told.append({**facts, "sent": 2 * received + 1, "received": received})
    until_told()
    listener.close()
    say(told)


def talk(version, port, count):
    """Make connections one after the other, each with another number of bytes."""
    told = []
    for number in range(int(count)):
        one = dial(version, int(port))
        facts = ends(one)
        sent = number * 37 % 5000
        one.sendall(bytes(sent))
        one.shutdown(socket.SHUT_WR)
        received = read_all(one)
        one.close()
        told.append({**facts, "sent": sent, "received": received})
    say(told)


def refused():
    """Connect to a port that nobody listens on."""
    probe = listen("4")
    port = probe.getsockname()[1]
    probe.close()
    one = socket.socket()
    error = one.connect_ex(("127.0.0.1", port))
    say({"socket": cookie(one), "peer": port, "error": error})


def reset():
    """Close with bytes unread by the peer and SO_LINGER 0: the peer is reset."""
    listener = listen("4")
    one = dial("4", listener.getsockname()[1])
    other, _ = listener.accept()
    facts = [ends(one), ends(other)]
    one.sendall(b"ten bytes!")
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()
    try:
        other.recv(10)
        other.recv(10)
        error = 0
    except OSError as problem:
        error = problem.errno
    other.close()
    say({"closer": facts[0], "other": facts[1], "error": error})


def idle(version="4"):
    """Accept one connection and do nothing with it."""
    listener = listen(version)
    say({"pid": os.getpid(), "port": listener.getsockname()[1]})
    one, _ = listener.accept()
    say(ends(one))
    until_told()


def prefork():
    """Listen, and let a child accept."""
    listener = listen("4")
    say({"pid": os.getpid(), "port": listener.getsockname()[1]})
    child = os.fork()
    if child == 0:
        one, _ = listener.accept()
        say({"pid": os.getpid(), **ends(one)})
        until_told()
        os._exit(0)
    os.waitpid(child, 0)


def hold(version, port, sent):
    """Connect, send, and stay until told."""
    one = dial(version, int(port))
    one.sendall(bytes(int(sent)))
    say({**ends(one), "pid": os.getpid()})
    until_told()
    one.close()


def held():
    """Three connections with oneself: open on both sides, half closed, and one that only listens."""
    listener = listen("4")
    port = listener.getsockname()[1]
    pairs = []
    for _ in range(2):
        one = dial("4", port)
        pairs.append((one, listener.accept()[0]))
    for number, (one, other) in enumerate(pairs):
        one.sendall(bytes(1000 + number))
        other.sendall(bytes(5000 + number))
        assert len(other.recv(1000 + number, socket.MSG_WAITALL)) == 1000 + number
        assert len(one.recv(5000 + number, socket.MSG_WAITALL)) == 5000 + number
    pairs[1][0].shutdown(socket.SHUT_WR)
    assert pairs[1][1].recv(1) == b""
    say({"pid": os.getpid(), "listener": cookie(listener), "port": port, "pairs": [[ends(one), ends(other)] for one, other in pairs]})
    until_told()


def datagrams():
    """UDP without and with a connection, one error, and Unix sockets; with the names of the threads that did it."""
    first, second = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    first.bind(("127.0.0.1", 0))
    second.bind(("127.0.0.1", 0))
    there = second.getsockname()
    for size in (0, 1, 100, 60000):
        first.sendto(bytes(size), there)
        data, _ = second.recvfrom(65536)
        assert len(data) == size
    sixth, seventh = (socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(2))
    seventh.bind(("::1", 0))
    sixth.connect(seventh.getsockname())
    for size in (7, 70):
        sixth.send(bytes(size))
        seventh.recvfrom(100, socket.MSG_PEEK)
        seventh.recvfrom(100)
    unheard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    unheard.bind(("127.0.0.1", 0))
    nobody = unheard.getsockname()
    unheard.close()
    lonely = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    lonely.connect(nobody)
    lonely.send(b"hello")
    error = 0
    try:
        lonely.recv(10)
    except OSError as problem:
        error = problem.errno
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    left.sendall(bytes(12345))
    got = 0
    while got < 12345:
        got += len(right.recv(12345))
    small, large = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for size in (11, 22):
        small.send(bytes(size))
        large.recv(100)
    say(
        {
            "pid": os.getpid(),
            "udp": [[cookie(first), *first.getsockname()], [cookie(second), *there]],
            "udp6": [[cookie(sixth), *sixth.getsockname()[:2]], [cookie(seventh), *seventh.getsockname()[:2]]],
            "lonely": [cookie(lonely), *nobody],
            "error": error,
            "stream": [cookie(left), cookie(right)],
            "dgram": [cookie(small), cookie(large)],
        }
    )


def overflow():
    """Send more datagrams than the receiver has room for, then read what arrived."""
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    receiver.bind(("127.0.0.1", 0))
    receiver.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        receiver.recv(1)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for _ in range(100):
        sender.sendto(bytes(500), receiver.getsockname())
    arrived = 0
    try:
        while receiver.recv(1000):
            arrived += 1
    except BlockingIOError:
        pass
    say({"socket": cookie(receiver), "arrived": arrived, "sent": 100})


def files(path):
    """Send a file with sendfile, take it out with splice."""
    listener = listen("4")
    one = dial("4", listener.getsockname()[1])
    other, _ = listener.accept()
    size = os.path.getsize(path)

    def take():
        reader, writer = os.pipe()
        left = size
        while left:
            moved = os.splice(other.fileno(), writer, min(left, 65536))
            got = 0
            while got < moved:
                got += len(os.read(reader, moved - got))
            left -= moved

    thread = threading.Thread(target=take)
    thread.start()
    with open(path, "rb") as file:
        sent = 0
        while sent < size:
            sent += os.sendfile(one.fileno(), file.fileno(), sent, size - sent)
    thread.join()
    facts = [ends(one), ends(other)]
    one.close()
    other.close()
    say({"sender": facts[0], "receiver": facts[1], "size": size})


def namespace():
    """One exchange over loopback, in the network namespace that one is in."""
    listener = listen("6")
    one = dial("6", listener.getsockname()[1])
    other, _ = listener.accept()
    one.sendall(b"hello")
    other.recv(5)
    say({"netns": os.stat("/proc/self/ns/net").st_ino, "sockets": [cookie(one), cookie(other)]})


def retransmitted():
    """Segments that this network namespace has sent again, as the kernel counts them."""
    with open("/proc/self/net/snmp") as file:
        names, values = [line.split() for line in file if line.startswith("Tcp:")]
    return int(values[names.index("RetransSegs")])


def ip(words):
    subprocess.run(["ip", *words.split()], check=True)


def black_hole():
    """In a namespace of one's own: connect to a neighbour that is not there, with one retransmission of the SYN."""
    ip("link add v0 type veth peer name v1")
    ip("addr add 10.9.0.1/24 dev v0")
    ip("link set v0 up")
    ip("link set v1 up")
    ip("neigh replace 10.9.0.2 lladdr 02:00:00:00:00:02 dev v0 nud permanent")
    one = socket.socket()
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
    error = one.connect_ex(("10.9.0.2", 80))
    say({"socket": cookie(one), "error": error, "retransmitted": retransmitted()})


def gap():
    """Between two namespaces: send while the other is out of reach, until segments have been sent again; then it is back."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None, use_errno=True).unshare(0x40000000)  # CLONE_NEWNET
        os.write(told, b"1")
        while "v1" not in [name for _, name in socket.if_nameindex()]:
            time.sleep(0.002)
        ip("addr add 10.9.0.2/24 dev v1")
        ip("link set v1 up")
        listener = socket.socket()
        listener.bind(("10.9.0.2", 0))
        listener.listen(1)
        os.write(told, listener.getsockname()[1].to_bytes(2, "big"))
        other, _ = listener.accept()
        read_all(other)
        other.close()
        os._exit(0)
    os.read(ready, 1)
    ip(f"link add v0 type veth peer name v1 netns {child}")
    ip("addr add 10.9.0.1/24 dev v0")
    ip("link set v0 up")
    port = int.from_bytes(os.read(ready, 2), "big")
    one = socket.socket()
    one.connect(("10.9.0.2", port))
    one.sendall(bytes(1000))
    ip("neigh replace 10.9.0.2 lladdr 02:00:00:00:00:02 dev v0 nud permanent")
    one.sendall(bytes(1200))
    while retransmitted() < 2:
        time.sleep(0.01)
    ip("neigh del 10.9.0.2 dev v0")
    facts = ends(one)
    one.shutdown(socket.SHUT_WR)
    assert read_all(one) == 0
    one.close()
    os.waitpid(child, 0)
    say({**facts, "retransmitted": retransmitted()})


def many(version, count):
    """Connections with oneself, one after the other; say how many."""
    listener = listen(version)
    port = listener.getsockname()[1]
    for _ in range(int(count)):
        one = dial(version, port)
        other, _ = listener.accept()
        one.sendall(b"12345")
        assert other.recv(10) == b"12345"
        one.close()
        other.close()
    say({"pid": os.getpid(), "port": port})
    until_told()


def inherited():
    """Answer one connection on the listener that is standard input, as inetd and systemd give it to servers."""
    listener = socket.socket(fileno=0)
    one, _ = listener.accept()
    say({"pid": os.getpid(), **ends(one), "received": len(one.recv(100))})


def crowd(count):
    """Stay with many threads until told."""
    for _ in range(int(count)):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    say({"pid": os.getpid()})
    until_told()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
