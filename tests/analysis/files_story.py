"""Makes traces of calls on files: the calls of programs, told one after the other."""

import struct
from collections import defaultdict

import ringtape
from ringtape.analysis.analyses.files import files
from ringtape.analysis.file_calls import shape_of
from ringtape.schemas.abi import syscalls as abi
from tests.factory import T0, make

CWD, EBADF, ENOENT = -100, -9, -2
CLOEXEC, APPEND = 0o2000000, 0o2000
EXISTING, FORK, EXEC, EXIT = range(4)


def nr(name):
    return abi.number("x86_64", name)


class Story:
    """Calls and life events, each 10 us after the one before and 1 us long."""

    def __init__(self):
        self.now = T0
        self.rows = defaultdict(list)

    def tick(self):
        self.now += 10_000
        return self.now

    def call(self, name, *args, ret=0, pid=100, tid=None, path=None, other=None, kind=0, lost=False, dur=1000, abi=1):
        ts = self.tick()
        row = {"ts": ts, "dur": dur, "nr": nr(name), "ret": ret, "pid": pid, "tid": tid or pid, "kind": kind, "abi": abi}
        row |= {f"arg{at}": value for at, value in enumerate(args)}
        self.rows["syscalls"].append({**row, "lost": True} if lost else row)
        shape = shape_of("x86_64", nr(name))
        for value, arg in ((path, shape.path if shape else -1), (other, shape.path2 if shape else -1)):
            if value is not None:
                place = arg if arg >= 0 else {"accept": 1, "accept4": 1, "connect": 1, "bind": 1, "socketpair": 3}.get(name, 0)
                what = {"accept": 1, "accept4": 1, "connect": 1, "bind": 1, "pipe2": 2, "pipe": 2, "socketpair": 2}.get(name, 0)
                string = {"ts": ts, "nr": nr(name), "pid": pid, "tid": tid or pid, "arg": place, "kind": what, "value": value}
                self.rows["paths"].append(string)
        return self

    def open(self, path, ret, flags=0, **more):
        return self.call("openat", CWD, 0x1000, flags, ret=ret, path=path, **more)

    def life(self, kind, pid, tid=None, **more):
        self.rows["processes"].append({"ts": self.tick(), "kind": kind, "pid": pid, "tid": tid or pid, "start": self.now, **more})
        return self

    def fork(self, parent, child, tid=None, flags=0, creator=None):
        return self.life(FORK, child, tid, creator=creator or parent, ppid=parent, clone_flags=flags)

    def had(self, fd, target, pid=100, pos=0, flags=0):
        self.rows["descriptors"].append({"ts": self.now, "pid": pid, "fd": fd, "target": target, "pos": pos, "flags": flags})
        return self

    def trace(self, tmp_path, **more):
        return ringtape.open(make(tmp_path / f"{len(list(tmp_path.iterdir()))}.trace", **self.rows, **more))

    def result(self, tmp_path, **options):
        return {row["file"]: row for row in files(self.trace(tmp_path), top=0, **options).iter_rows(named=True)}


def random_story(chance, count):
    story = Story().had(CWD, b"/home").had(0, b"/dev/null").had(1, b"/log", pos=50)
    processes, born = [100], 200
    story.life(EXISTING, 100)
    for _ in range(count):
        pid = chance.choice(processes)
        fd, other = chance.randrange(8), chance.randrange(8)
        path = chance.choice([b"/a", b"/b", b"rel", b"sub/rel", b"./a"])
        match chance.randrange(16):
            case 0 | 1:
                story.open(path, chance.choice([fd, ENOENT]), chance.choice([0, CLOEXEC, APPEND]), pid=pid)
            case 2:
                story.call("close", fd, ret=chance.choice([0, EBADF]), pid=pid)
            case 3:
                story.call("dup2", fd, other, ret=other, pid=pid)
            case 4:
                story.call("pipe2", 1, chance.choice([0, CLOEXEC]), path=struct.pack("<ii", fd, fd + 8), pid=pid)
            case 5:
                story.fork(pid, born, flags=chance.choice([0, 0, 0x400, 0x200]))
                processes.append(born)
                born += 1
            case 6:
                story.life(EXEC, pid, creator=pid)
            case 7:
                story.call("fcntl", fd, 2, chance.randrange(2), pid=pid)
            case 8:
                story.call("chdir", 1, path=chance.choice([b"/srv", b"in"]), pid=pid)
            case 9:
                story.call("lseek", fd, 0, 0, ret=chance.randrange(3) * 10, pid=pid)
            case 10:
                story.call("pread64", fd, 0, 0, chance.randrange(3) * 10, ret=chance.choice([0, 10]), pid=pid)
            case 11:
                story.call("stat", 1, path=path, ret=chance.choice([0, ENOENT]), pid=pid)
            case 12 | 13:
                story.call("read", fd, ret=chance.choice([10, 10, 0, EBADF]), pid=pid)
            case _:
                story.call("write", fd, ret=10, pid=pid)
    return story
