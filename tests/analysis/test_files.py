"""Calls stand under the file that they work on, however the descriptor came to be."""

import struct

import pytest

import ringtape
from ringtape.analysis.analyses.files import files, notes
from ringtape.schemas.errors import UsageError
from tests.analysis.files_story import APPEND, CLOEXEC, CWD, EBADF, ENOENT, EXEC, EXISTING, EXIT, Story
from tests.factory import make


def test_an_open_file_gets_its_reads_writes_bytes_time_and_errors(tmp_path):
    story = Story().open(b"/data", 3, dur=5000).call("read", 3, 0, 100, ret=100, dur=2000).call("read", 3, ret=-5, dur=300)
    story.call("write", 3, 0, 7, ret=7, dur=700).call("fstat", 3).call("close", 3).open(b"/data", ENOENT, dur=10)
    row = story.result(tmp_path)["/data"]
    assert row == {
        "file": "/data", "kind": "file", "calls": 7, "time": 5000 + 2000 + 300 + 700 + 1000 + 1000 + 10, "read_time": 2300, "write_time": 700,
        "opens": 1, "reads": 2, "writes": 1, "bytes_read": 100, "bytes_written": 7, "sequential": 1.0, "errors": 2, "errnos": "EIO 1, ENOENT 1",
        "still_open": 0, "also": 0, "mapped": 0, "doubtful": 0, "lost": 0,
    }  # fmt: skip


def test_a_number_that_is_used_again_means_the_new_file(tmp_path):
    story = Story().open(b"/a", 3).call("read", 3, ret=1).call("close", 3).open(b"/b", 3).call("read", 3, ret=10).call("close", 3)
    found = story.call("read", 3, ret=EBADF).result(tmp_path)
    assert (found["/a"]["bytes_read"], found["/b"]["bytes_read"]) == (1, 10)
    assert found["(descriptor that is not open)"]["errnos"] == "EBADF 1"


def test_close_that_fails_gives_the_number_back_unless_it_was_none(tmp_path):
    story = Story().open(b"/a", 3).call("close", 3, ret=-4).call("read", 3, ret=5)
    assert story.result(tmp_path)["fd 3 (unknown)"]["bytes_read"] == 5
    story = Story().open(b"/a", 3).call("close", 3, ret=EBADF).call("read", 3, ret=5)
    assert story.result(tmp_path)["/a"]["bytes_read"] == 5


@pytest.mark.parametrize(
    ("call", "args", "ret"),
    [("dup", (3,), 7), ("dup2", (3, 7), 7), ("dup3", (3, 7, CLOEXEC), 7), ("fcntl", (3, 0, 5), 7), ("fcntl", (3, 1030, 5), 7)],
)
def test_duplicates_mean_the_same_file_and_outlive_the_original(tmp_path, call, args, ret):
    story = Story().open(b"/a", 3).call(call, *args, ret=ret).call("close", 3).call("write", 7, ret=9)
    row = story.result(tmp_path)["/a"]
    assert (row["bytes_written"], row["opens"], row["still_open"]) == (9, 1, 1)


def test_dup2_closes_what_the_number_meant_before(tmp_path):
    found = Story().open(b"/a", 3).open(b"/b", 4).call("dup2", 3, 4, ret=4).call("write", 4, ret=2).result(tmp_path)
    assert found["/a"]["bytes_written"] == 2
    assert found["/b"]["still_open"] == 0


def test_a_child_inherits_what_was_open_and_goes_its_own_way(tmp_path):
    story = Story().open(b"/a", 3).fork(100, 200).call("close", 3).open(b"/b", 3)
    story.call("read", 3, ret=1, pid=200).call("read", 3, ret=10).life(EXIT, 100, group_dead=1)
    found = story.result(tmp_path)
    assert (found["/a"]["bytes_read"], found["/b"]["bytes_read"]) == (1, 10)
    assert (found["/a"]["still_open"], found["/b"]["still_open"]) == (1, 0)


def test_threads_and_other_sharers_of_the_table_see_the_same_descriptors(tmp_path):
    for child, tid, flags in ((100, 101, 0x10F00), (200, 200, 0x400)):
        story = Story().fork(100, child, tid, flags).open(b"/a", 3, pid=child, tid=tid).call("read", 3, ret=4).call("close", 3)
        story.call("read", 3, ret=8, pid=child, tid=tid)
        found = story.result(tmp_path)
        assert found["/a"]["bytes_read"] == 4
        assert found["fd 3 (unknown)"]["bytes_read"] == 8


def test_exec_closes_what_is_so_marked(tmp_path):
    story = Story().open(b"/kept", 3).open(b"/flag", 4, CLOEXEC).open(b"/set", 5).call("fcntl", 5, 2, 1)
    story.open(b"/cleared", 6, CLOEXEC).call("fcntl", 6, 2, 0).open(b"/ioctl", 7).call("ioctl", 7, 0x5451).call("dup", 4, ret=8)
    story.call("fcntl", 3, 1030, 0, ret=9).call("socket", 2, 1 | CLOEXEC, ret=10).call("close_range", 11, 20, 4)
    story.life(EXEC, 100, creator=100)
    for fd in range(3, 11):
        story.call("write", fd, ret=1 << fd)
    found = story.result(tmp_path)
    assert {name: row["bytes_written"] for name, row in found.items() if row["bytes_written"]} == {
        "/kept": 8, "fd 4 (unknown)": 16, "fd 5 (unknown)": 32, "/cleared": 64, "fd 7 (unknown)": 128, "/flag": 256,
        "fd 9 (unknown)": 512, "fd 10 (unknown)": 1024,
    }  # fmt: skip


def test_exec_leaves_the_table_that_another_process_shares(tmp_path):
    story = Story().open(b"/a", 3, CLOEXEC).fork(100, 200, flags=0x400).life(EXEC, 200, creator=200)
    found = story.call("read", 3, ret=1, pid=200).call("read", 3, ret=2).result(tmp_path)
    assert (found["/a"]["bytes_read"], found["fd 3 (unknown)"]["bytes_read"]) == (2, 1)


def test_close_range_closes_marks_and_unshares(tmp_path):
    story = Story().open(b"/a", 3).open(b"/b", 4).open(b"/c", 5).call("close_range", 4, 0xFFFFFFFF)
    story.call("read", 3, ret=1).call("read", 4, ret=2).call("read", 5, ret=4)
    found = story.result(tmp_path)
    assert {name: row["bytes_read"] for name, row in found.items()} == {"/a": 1, "/b": 0, "/c": 0, "fd 4 (unknown)": 2, "fd 5 (unknown)": 4}
    story = Story().open(b"/a", 3).fork(100, 100, 101, 0x10F00).call("close_range", 3, 3, 2, tid=101)
    found = story.call("read", 3, ret=1).call("read", 3, ret=2, tid=101).result(tmp_path)
    assert (found["/a"]["bytes_read"], found["fd 3 (unknown)"]["bytes_read"]) == (1, 2)


def test_pipes_and_pairs_of_sockets_are_known_by_the_two_descriptors_that_were_recorded(tmp_path):
    story = Story().call("pipe2", 0x1000, 0, path=struct.pack("<ii", 3, 4)).call("socketpair", 1, 1, 0, 0x1000, path=struct.pack("<ii", 5, 6))
    story.call("write", 4, ret=10).call("read", 3, ret=10).call("sendto", 5, ret=3).call("recvfrom", 6, ret=3).call("pipe2", 0x1000, 0)
    found = story.result(tmp_path)
    pipe, pair = found["pipe made by 100"], found["socket:UNIX pair made by 100"]
    assert (pipe["bytes_read"], pipe["bytes_written"], pipe["opens"], pipe["calls"], pipe["kind"]) == (10, 10, 2, 4, "pipe")
    assert (pair["bytes_read"], pair["bytes_written"], pair["opens"], pair["kind"]) == (3, 3, 2, "socket")


def test_sockets_are_called_after_their_peers(tmp_path):
    web, listening = b"\x02\0\0\x50\x0a\0\0\x01" + bytes(8), b"\x02\0\x1f\x90\0\0\0\0" + bytes(8)
    story = Story().call("socket", 2, 1, ret=3).call("connect", 3, 0, 16, ret=-115, path=web).call("sendto", 3, ret=50)
    story.call("socket", 10, 2, ret=4).call("socket", 2, 1, ret=5).call("bind", 5, 0, 16, path=listening).call("listen", 5)
    for port in (1, 2):
        story.call("accept4", 5, 0x1000, 0, 0, ret=6, path=struct.pack(">BBH4B8x", 2, 0, port, 127, 0, 0, 1))
        story.call("recvfrom", 6, ret=port).call("close", 6)
    story.call("socket", 1, 1, ret=7).call("connect", 7, 0, 10, ret=ENOENT, path=b"\x01\0/run/nscd\0")
    found = story.result(tmp_path)
    assert found["socket:TCP to 10.0.0.1:80"]["bytes_written"] == 50
    assert found["socket:TCP to 10.0.0.1:80"]["errnos"] == "EINPROGRESS 1"
    assert found["socket:UDP"]["calls"] == 1
    assert found["socket:TCP at 0.0.0.0:8080"]["calls"] == 5  # socket, bind, listen, two accepts
    accepted = found["socket:TCP from 127.0.0.1 at 0.0.0.0:8080"]
    assert (accepted["bytes_read"], accepted["opens"], accepted["calls"]) == (3, 2, 4)
    assert found["socket:UNIX to /run/nscd"]["errors"] == 1


def test_what_is_made_without_a_path_is_called_by_its_kind(tmp_path):
    story = Story().call("eventfd2", 0, 0, ret=3).call("epoll_create1", 0, ret=4).call("epoll_ctl", 4, 1, 3).call("epoll_wait", 4, ret=0)
    story.call("memfd_create", 0x1000, 0, ret=5, path=b"shm").call("write", 5, ret=8).call("signalfd4", -1, 0, 8, 0, ret=6)
    story.call("signalfd4", 6, 0, 8, 0, ret=6).call("eventfd2", 0, 0, ret=-24)
    found = story.result(tmp_path)
    assert (found["anon_inode:[eventfd]"]["calls"], found["anon_inode:[eventfd]"]["also"], found["anon_inode:[eventfd]"]["errors"]) == (2, 1, 1)
    assert found["anon_inode:[eventpoll]"]["calls"] == 3
    assert found["memfd:shm"]["bytes_written"] == 8
    assert found["anon_inode:[signalfd]"]["calls"] == 2


def test_relative_paths_are_taken_from_the_working_folder_where_it_is_known(tmp_path):
    story = Story().open(b"x", 3).call("chdir", 0x1000, path=b"sub").open(b"x", 4).call("chdir", 0x1000, path=b"/srv//www/./").open(b"./x", 5)
    story.open(b"/etc", 6).call("openat", 6, 0x1000, ret=7, path=b"passwd").call("fchdir", 6).call("stat", 0x1000, path=b"../up")
    story.fork(100, 200).call("chdir", 0x1000, path=b"/elsewhere", pid=200).call("access", 0x1000, ret=ENOENT, path=b"y")
    story.call("access", 0x1000, ret=ENOENT, path=b"y", pid=200)
    found = story.result(tmp_path)
    assert set(found) == {
        "x", "sub", "sub/x", "/srv/www", "/srv/www/x", "/etc", "/etc/passwd", "/etc/../up", "/elsewhere", "/etc/y", "/elsewhere/y",
    }  # fmt: skip
    assert found["/etc/y"]["errnos"] == "ENOENT 1"


def test_two_dots_are_resolved_from_a_folder_that_the_kernel_has_named_and_from_no_other(tmp_path):
    story = Story().had(CWD, b"/srv/app/build")
    story.open(b"../src/a.h", 3).open(b"./../../lib//b.h", 4).open(b"../../../../etc/c", 5).open(b"src/../d", 6)
    story.call("chdir", 0x1000, path=b"../src/").open(b"../src/e", 7)  # src may be a link
    story.call("chdir", 0x1000, path=b"/srv/app/build").call("chdir", 0x1000, path=b"..").open(b"f", 8).open(b"../g", 9)
    story.call("chdir", 0x1000, path=b"../../..").open(b"h", 10)
    assert set(story.result(tmp_path)) == {
        "/srv/app/src/a.h", "/srv/lib/b.h", "/etc/c", "/srv/app/build/src/../d",
        "/srv/app/src", "/srv/app/src/../src/e", "/srv/app/build", "/srv/app", "/srv/app/f", "/srv/g", "/", "/h",
    }  # fmt: skip


def test_threads_share_their_working_folder_unless_told_otherwise(tmp_path):
    story = Story().fork(100, 100, 101, 0x10F00).call("chdir", 0x1000, path=b"/a", tid=101).call("stat", 0x1000, path=b"x")
    story.call("unshare", 0x200).call("chdir", 0x1000, path=b"/b", tid=101).call("stat", 0x1000, path=b"y")
    assert {"/a/x", "/a/y"} <= set(story.result(tmp_path))


def test_an_empty_path_means_the_descriptor_beside_it(tmp_path):
    story = Story().open(b"/a", 3).call("newfstatat", 3, 0x1000, 0, 0x1000, path=b"").call("statx", 3, 0, 0x1000)
    story.call("newfstatat", 3, 0x2000, 0, 0).call("stat", 0x1000, ret=ENOENT, path=b"")
    found = story.result(tmp_path)
    assert {name: row["calls"] for name, row in found.items()} == {"/a": 3, "(path not recorded)": 1, "(empty path)": 1}


def test_calls_with_two_files_count_once_and_their_bytes_on_both_sides(tmp_path):
    story = Story().open(b"/in", 3).open(b"/out", 4).call("copy_file_range", 3, 0, 4, 0, ret=70).call("sendfile", 4, 3, 0, ret=30)
    story.call("rename", 0x1, 0x2, path=b"/old", other=b"/new").call("symlink", 0x1, 0x2, path=b"/link")
    found = story.result(tmp_path)
    assert (found["/in"]["bytes_read"], found["/out"]["bytes_written"]) == (100, 100)
    assert (found["/in"]["calls"], found["/in"]["also"], found["/out"]["calls"], found["/out"]["also"]) == (2, 1, 2, 1)
    assert (found["/in"]["sequential"], found["/out"]["sequential"]) == (1, 1)
    assert (found["/old"]["calls"], found["/new"]["calls"], found["/new"]["also"], found["/link"]["calls"]) == (1, 0, 1, 1)


def test_mapping_is_counted_and_anonymous_memory_is_no_file(tmp_path):
    story = Story().open(b"/lib", 3).call("mmap", 0, 4096, 1, 2, 3, 0, ret=0x7000).call("mmap", 0, 4096, 1, 0x22, -1, 0, ret=0x8000)
    trace = story.trace(tmp_path)
    (row,) = files(trace).iter_rows(named=True)
    assert (row["calls"], row["mapped"]) == (2, 1)
    assert any("mapped" in note for note in notes(files(trace)))


class TestSequential:
    def share(self, tmp_path, story, name="/f"):
        return story.result(tmp_path)[name]["sequential"]

    def test_reading_on_is_sequential_and_seeking_away_is_not(self, tmp_path):
        story = Story().open(b"/f", 3).call("read", 3, ret=10).call("read", 3, ret=10).call("lseek", 3, 1000, 0, ret=1000).call("read", 3, ret=20)
        assert self.share(tmp_path, story) == 0.5

    def test_seeking_to_where_one_is_changes_nothing(self, tmp_path):
        story = Story().open(b"/f", 3).call("read", 3, ret=10).call("lseek", 3, 0, 1, ret=10).call("read", 3, ret=10)
        assert self.share(tmp_path, story) == 1

    def test_positioned_access_is_compared_with_the_end_of_the_one_before(self, tmp_path):
        story = Story().open(b"/f", 3)
        for offset, count in ((0, 4), (4, 4), (100, 8), (108, 8), (0, 16)):
            story.call("pread64", 3, 0, 64, offset, ret=count)
        assert self.share(tmp_path, story) == 16 / 40

    def test_positioned_access_leaves_the_position_alone(self, tmp_path):
        story = Story().open(b"/f", 3).call("read", 3, ret=10).call("pread64", 3, 0, 1, 500, ret=30).call("read", 3, ret=10)
        assert self.share(tmp_path, story) == 10 / 50
        story = Story().open(b"/f", 3).call("read", 3, ret=10).call("pread64", 3, 0, 1, 10, ret=30).call("preadv2", 3, 0, 1, -1, ret=30)
        assert self.share(tmp_path, story) == 40 / 70

    def test_duplicates_and_children_share_the_position(self, tmp_path):
        story = (
            Story().open(b"/f", 3).call("dup", 3, ret=4).fork(100, 200).call("read", 3, ret=5).call("read", 4, ret=5).call("read", 3, ret=5, pid=200)
        )
        assert self.share(tmp_path, story) == 1
        story = Story().open(b"/f", 3).open(b"/f", 4).call("lseek", 4, 5, 0, ret=5).call("read", 3, ret=5).call("read", 4, ret=5)
        assert self.share(tmp_path, story) == 0.5

    def test_appending_is_sequential_wherever_the_position_is(self, tmp_path):
        story = Story().open(b"/f", 3, APPEND).call("write", 3, ret=5).call("lseek", 3, 0, 0, ret=0).call("write", 3, ret=5)
        assert self.share(tmp_path, story) == 1

    def test_what_was_open_before_goes_on_from_its_position(self, tmp_path):
        story = Story().had(3, b"/f", pos=100).call("read", 3, ret=10).call("pread64", 3, 0, 1, 110, ret=10).call("pread64", 3, 0, 1, 0, ret=20)
        assert self.share(tmp_path, story) == 0.5

    def test_pipes_have_no_position(self, tmp_path):
        story = Story().call("pipe2", 1, 0, path=struct.pack("<ii", 3, 4)).call("read", 3, ret=5)
        assert story.result(tmp_path)["pipe made by 100"]["sequential"] is None


class TestBefore:
    def test_descriptors_from_before_the_recording_have_their_names(self, tmp_path):
        story = Story().call("read", 5, ret=1).had(CWD, b"/home").had(5, b"/log").had(0, b"socket:[77]").had(1, b"pipe:[88]").had(9, b"/unused")
        story.call("read", 5, ret=2).call("read", 0, ret=4).call("write", 1, ret=8).call("stat", 1, path=b"x")
        found = story.result(tmp_path)
        assert found["/log"]["bytes_read"] == 3  # also what was read before it was looked at
        assert (found["socket:[77]"]["kind"], found["pipe:[88]"]["kind"]) == ("socket", "pipe")
        assert found["/home/x"]["calls"] == 1
        assert "/unused" not in found
        assert found["/log"]["opens"] == 0
        assert found["/log"]["still_open"] == 1

    def test_what_a_process_did_while_it_was_looked_at_wins(self, tmp_path):
        story = Story().had(3, b"/old").call("close", 3).open(b"/new", 3).call("read", 3, ret=1)
        assert story.result(tmp_path)["/new"]["bytes_read"] == 1
        story = Story().open(b"/new", 3).had(3, b"/new").call("read", 3, ret=1)
        row = story.result(tmp_path)["/new"]
        assert (row["bytes_read"], row["opens"]) == (1, 1)
        story = Story().fork(100, 200).had(3, b"/early").call("read", 3, ret=7, pid=200)
        assert story.result(tmp_path)["/early"]["bytes_read"] == 7

    def test_marks_from_before_hold_at_exec(self, tmp_path):
        story = Story().had(3, b"/a", flags=CLOEXEC).had(4, b"/b").life(EXEC, 100, creator=100).call("read", 3, ret=1).call("read", 4, ret=2)
        found = story.result(tmp_path)
        assert (found["fd 3 (unknown)"]["bytes_read"], found["/b"]["bytes_read"]) == (1, 2)

    def test_a_process_number_that_is_used_again_begins_anew(self, tmp_path):
        story = Story().life(EXISTING, 50).open(b"/a", 3, pid=50).life(EXIT, 50, group_dead=1).life(EXISTING, 60).fork(60, 50)
        assert story.call("read", 3, ret=1, pid=50).result(tmp_path)["fd 3 (unknown)"]["bytes_read"] == 1


class TestLoss:
    def test_lost_calls_are_a_row_and_what_reaches_across_them_is_doubtful(self, tmp_path):
        story = Story().open(b"/a", 3).call("read", 3, ret=1).call("close", 3, lost=True).call("read", 3, ret=1).open(b"/b", 4).call("read", 4, ret=1)
        trace = story.trace(tmp_path)
        found = {row["file"]: row for row in files(trace).iter_rows(named=True)}
        assert (found["/a"]["doubtful"], found["/b"]["doubtful"]) == (1, 0)
        assert (found["(lost calls)"]["calls"], found["(lost calls)"]["time"], found["(lost calls)"]["lost"]) == (1, 1000, 1)
        assert any("before a loss" in note for note in notes(files(trace)))

    def test_losing_what_changes_no_descriptor_makes_nothing_doubtful(self, tmp_path):
        story = Story().open(b"/a", 3).call("read", 3, lost=True).call("read", 3, ret=1).call("getppid", lost=True)
        found = story.result(tmp_path)
        assert found["/a"]["doubtful"] == 0
        assert found["(lost calls)"]["calls"] == 1

    def test_a_filter_makes_everything_doubtful_that_hangs_on_a_descriptor(self, tmp_path):
        story = Story().open(b"/a", 3).call("read", 3, ret=1)
        (row,) = files(story.trace(tmp_path, header={"options": {"syscall": ["openat", "read"]}})).iter_rows(named=True)
        assert (row["calls"], row["doubtful"]) == (2, 1)


def test_calls_that_did_not_return_or_were_answered_by_others_change_nothing(tmp_path):
    story = Story().open(b"/a", 3).call("openat", CWD, 1, ret=0, path=b"/b", kind=3).call("close", 3, ret=0, kind=5).call("read", 3, ret=8)
    found = story.call("clone", kind=4).result(tmp_path)
    assert found["/a"]["bytes_read"] == 8
    assert (found["/b"]["calls"], found["/b"]["opens"]) == (1, 0)


def test_what_exceeds_the_top_is_added_up(tmp_path):
    story = Story()
    for at in range(5):
        story.open(b"/%d" % at, ENOENT, dur=100 - at)
    trace = story.trace(tmp_path)
    shown = files(trace, top=2)
    assert shown.select("file", "calls", "time", "errnos").rows() == [
        ("/0", 1, 100, "ENOENT 1"), ("/1", 1, 99, "ENOENT 1"), ("(3 others)", 3, 98 + 97 + 96, "ENOENT 3"),
    ]  # fmt: skip
    assert shown["kind"].to_list() == ["file", "file", None]
    assert len(files(trace, top=4)) == 5  # one that is left over is shown as itself


def test_processes_are_told_apart_on_request(tmp_path):
    story = Story().open(b"/a", 3).fork(100, 200).call("read", 3, ret=4, pid=200)
    trace = story.trace(tmp_path)
    by = files(trace, by=["file", "process"]).sort("process")
    assert by.select("file", "process", "calls", "still_open").rows() == [("/a", 100, 1, 1), ("/a", 200, 1, 1)]
    assert files(trace, by="process").sort("process").select("process", "bytes_read").rows() == [(100, 0), (200, 4)]
    for wrong in ("", "path", "file,file"):
        with pytest.raises(UsageError):
            files(trace, by=wrong)


def test_an_empty_trace_has_no_files(tmp_path):
    assert files(ringtape.open(make(tmp_path / "empty.trace"))).is_empty()


def test_control_characters_in_paths_are_escaped(tmp_path):
    assert "/\\x1b[31m" in Story().open(b"/\x1b[31m", ENOENT).result(tmp_path)
