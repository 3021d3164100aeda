"""Format files of tracepoints: every one of this kernel, and mutilated ones."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ringtape.recorder import tracefs
from ringtape.recorder.btf import VMLINUX, read_enumerators
from ringtape.recorder.events import choose_events, layout_of, match_events
from ringtape.recorder.print_format import parse_print_format
from ringtape.recorder.tracefs import FormatError, event_names, find_tracefs, parse_format, read_event, read_events
from ringtape.schemas.errors import RecordingError, UsageError
from ringtape.schemas.events import Event, EventField, Symbols, describe_events, parse_events
from tests.kernel.recording import CODE, ENVIRONMENT

COMMON = """\
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;
"""
BLOCK = f"""\
name: block_rq_issue
ID: 2104
format:
{COMMON}
	field:dev_t dev;	offset:8;	size:4;	signed:0;
	field:sector_t sector;	offset:16;	size:8;	signed:0;
	field:unsigned short ioprio;	offset:32;	size:2;	signed:0;
	field:char rwbs[10];	offset:34;	size:10;	signed:0;
	field:__u8 saddr[4];	offset:44;	size:4;	signed:0;
	field:unsigned long args[6];	offset:48;	size:48;	signed:0;
	field:const char * why;	offset:96;	size:8;	signed:0;
	field:__data_loc char[] cmd;	offset:104;	size:4;	signed:0;
	field:__rel_loc u64[] list;	offset:108;	size:4;	signed:0;
	field:__data_loc cpumask_t cpus;	offset:112;	size:4;	signed:0;
	field:bool last;	offset:116;	size:1;	signed:0;

print fmt: "%d,%d %s (%s) %llu from %pI4 0x%lx %s [%s]", ((unsigned int) ((REC->dev) >> 20)), ((unsigned int) ((REC->dev) & ((1U << 20) - 1))), \
REC->rwbs, __get_str(cmd), (unsigned long long)REC->sector, REC->saddr, REC->sector, \
__print_symbolic((((REC->ioprio) >> 13) & (8 - 1)), {{ 0, "none" }}, {{ 1, "rt" }}, {{ IOPRIO_CLASS_BE, "be" }}), REC->why
"""
readable = pytest.mark.skipif(
    not any(os.access(place / "events", os.R_OK | os.X_OK) for place in tracefs.PLACES), reason="tracefs is not mounted, or for root only"
)


def test_every_kind_of_field_is_read_as_what_it_is():
    event = parse_format(BLOCK, "block")
    assert (event.name, event.id, event.fixed_size) == ("block:block_rq_issue", 2104, 109)
    assert event.fields == (
        EventField("dev", "dev_t", 8, 4, 4, False, "scalar", show="dev"),
        EventField("sector", "sector_t", 16, 8, 8, False, "scalar", show="hex"),
        EventField("ioprio", "unsigned short", 32, 2, 2, False, "scalar", symbols=Symbols(False, 13, 7, "|", ((0, "none"), (1, "rt")))),
        EventField("rwbs", "char[10]", 34, 10, 1, False, "array", text=True),
        EventField("saddr", "__u8[4]", 44, 4, 1, False, "array", show="ipv4"),
        EventField("args", "unsigned long[6]", 48, 48, 8, False, "array"),
        EventField("why", "const char *", 96, 8, 8, False, "scalar", string=0, show="hex"),
        EventField("cmd", "__data_loc char[]", 104, 4, 1, False, "loc", text=True),
        EventField("list", "__rel_loc u64[]", 108, 4, 8, False, "rel"),
        EventField("cpus", "__data_loc cpumask_t", 112, 4, 8, False, "loc"),
        EventField("last", "bool", 116, 1, 1, False, "scalar"),
    )


def test_the_layout_for_the_probe_names_words_and_pointers():
    # id, bytes of fixed fields, words, strings; then 8 words (rel: bit 16), 8 pointers.
    expected = [2104, 109, 3, 1, 104, 108 | 0x10000, 112, 0, 0, 0, 0, 0, 96, 0, 0, 0, 0, 0, 0, 0]
    assert [int.from_bytes(layout_of(parse_format(BLOCK, "block"))[at : at + 4], "little") for at in range(0, 80, 4)] == expected


def test_an_int_of_a_system_call_is_the_low_half_of_its_register_and_its_path_is_read_from_the_program():
    text = (
        f"name: sys_enter_openat\nID: 700\nformat:\n{COMMON}"
        "\tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;\n"
        "\tfield:int dfd;\toffset:16;\tsize:8;\tsigned:0;\n"
        "\tfield:const char * filename;\toffset:24;\tsize:8;\tsigned:0;\n"
        "\tfield:const char * buf;\toffset:32;\tsize:8;\tsigned:0;\n"
        "\tfield:umode_t mode;\toffset:40;\tsize:8;\tsigned:0;\n"
        '\tfield:__data_loc char[] __filename_val;\toffset:48;\tsize:4;\tsigned:0;\n\nprint fmt: ""\n'
    )
    event = parse_format(text, "syscalls")
    assert [(field.name, field.size, field.signed, field.string) for field in event.fields] == [
        ("__syscall_nr", 4, True, -1),
        ("dfd", 4, True, -1),
        ("filename", 8, False, 0),
        ("buf", 8, False, -1),  # a buffer, not a path
        ("mode", 2, False, -1),
    ]
    assert int.from_bytes(layout_of(event)[48:52], "little") == 24 | 0x10000


@readable
def test_every_format_file_of_this_kernel_is_read_and_its_sizes_agree_with_the_file():
    place = find_tracefs()
    names = event_names(place)
    assert len(names) > 500
    seen = []
    for name in names:
        group, _, event_name = name.partition(":")
        text = (place / "events" / group / event_name / "format").read_text()
        event = read_event(place, name)
        assert event.name == name
        assert f"\nID: {event.id}\n" in text
        declared = [
            (match[1], int(match[2]), int(match[3]), match[4] == "1")
            for match in re.finditer(r"field:(.*?);\toffset:(\d+);\tsize:(\d+);\tsigned:(\d);", text)
            if int(match[2]) >= 8
        ]
        assert len(event.fields) == len(declared), name
        for field, (declaration, offset, size, signed) in zip(event.fields, declared, strict=True):
            words = re.sub(r"\[.*?\]", "", declaration).replace("*", " ").split()
            assert field.name == words[-1], name
            assert field.offset == offset, (name, field.name)
            assert field.size == size or (group == "syscalls" and field.size < size), (name, field.name)
            if field.shape == "scalar" and field.size == size:
                assert (field.item, field.signed) == (size, signed), (name, field.name)
            if re.search(r"\bchar \w+\[\d+\]$|^__data_loc char\[\]", declaration) and not declaration.startswith(("unsigned", "signed")):
                assert field.text, (name, declaration)
        # The last byte of the fixed part is that of the last field: what is read of a record is never more than it has.
        assert event.fixed_size <= max((offset + size for _, offset, size, _ in declared), default=8) - 8
        seen.append(event)
    assert parse_events(describe_events(seen)) == {event.name: event for event in seen}
    tables = sum(field.symbols is not None for event in seen for field in event.fields)
    assert tables > 300  # the values of which the kernel names in its formats


@given(st.data())
def test_a_mutilated_format_is_refused_or_read_as_something_that_can_be(data):
    text = BLOCK
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        cut = data.draw(st.integers(0, 12))
        text = text[:at] + data.draw(st.text(st.sampled_from('aR-> (){}[];:%"\\\n\t0123456789,&|<>?*_'), max_size=6)) + text[at + cut :]
    try:
        event = parse_format(text, "block")
    except FormatError:
        return
    assert parse_events(describe_events([event])) == {event.name: event}
    layout_of(event)


@given(st.text(max_size=200))
@example('"%s", ' + "(" * 5000)
@example('"%s", ' + "-" * 5000 + "1")
@example('"%d", __print_symbolic(REC->a, ' + "{" * 3000)
@example('"%d", 1 << 99999999999999999999, 1 / 0, 1 % 0, 09')
@example('"' + "%*.*" * 3000 + 'd"')
@example('"%d", REC->' + "a->" * 4000)
@example("\x00" * 100)
def test_any_print_format_is_read_without_an_error_and_in_time(text):
    parse_print_format(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('__print_flags(REC->f, "|", { 1, "A" }, { 0x2UL, "B" }, { (1U << 3), "C" })', Symbols(True, 0, -1, "|", ((1, "A"), (2, "B"), (8, "C")))),
        ('__print_symbolic(REC->f & 0xff, { -1, "bad" })', Symbols(False, 0, 255, "|", ((-1, "bad"),))),
        ('(REC->f & 3) ? __print_flags(REC->f & 3, "", {1,"S"}, {2,"D"}) : "R"', Symbols(True, 0, 3, "", ((1, "S"), (2, "D")))),
        ('__print_symbolic((int)(REC->f >> 4), { UNKNOWN, "x" }, { 2, "two" "2" })', Symbols(False, 4, -1, "|", ((2, "two2"),))),
        (
            '__print_flags((REC->f), "|", {( unsigned long)(((( gfp_t)((((1UL))) << (6)))) | (1 << 7)), "G"})',
            Symbols(True, 0, -1, "|", ((192, "G"),)),
        ),
        ("REC->f ? func(REC->f) : sizeof(struct page)", None),
        ('__print_symbolic(other(REC->f), { 1, "x" })', None),
        ("__print_symbolic(REC->f)", None),
    ],
)
def test_tables_of_names_are_found_in_expressions(text, expected):
    assert parse_print_format(f'"%s", {text}').symbols.get("f") == expected


def test_names_of_constants_are_asked_for_and_take_the_values_that_the_kernel_s_types_tell():
    text = '"%s", __print_symbolic(REC->f, { MODE_A, "a" }, { MODE_B | 4, "b" }, { (MODE_C), "c" })'
    found = parse_print_format(text)
    assert (found.symbols, found.unknown) == ({}, {"MODE_A", "MODE_B", "MODE_C"})
    found = parse_print_format(text, {"MODE_A": -1, "MODE_B": 8})
    assert found.symbols["f"].names == ((-1, "a"), (12, "b"))


@pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel offers no BTF")
def test_enumerators_have_the_values_of_the_kernel_s_own_headers():
    wanted = {"IOPRIO_CLASS_BE": 2, "BPF_MAP_TYPE_HASH": 1, "TCP_SYN_SENT": 2, "HRTIMER_RESTART": 1}
    assert read_enumerators([*wanted, "NO_SUCH_ENUMERATOR"]) == wanted
    assert read_enumerators(["TCP_SYN_SENT"], Path("/nowhere")) == {}


@readable
@pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel offers no BTF")
def test_an_event_whose_format_names_constants_is_read_with_their_values():
    if "block:block_rq_issue" not in event_names(find_tracefs()):
        pytest.skip("this kernel has no tracepoints of block devices")
    ((_, event),) = read_events(find_tracefs(), ["block:block_rq_issue"])
    if (priority := event.field("ioprio")) is None:
        pytest.skip("before Linux 6.7 the event does not tell the priority")
    assert (priority.symbols.shift, priority.symbols.mask) == (13, 7)
    assert (2, "be") in priority.symbols.names


def test_a_field_is_shown_as_its_conversion_says():
    text = '"%d %*d 0x%lx %#o %pM %pI6c %ps %%", REC->a, 5, REC->b, (u64)REC->c, REC->d, REC->e, &REC->g, (void *)REC->h, REC->z'
    assert parse_print_format(text).shows == {"c": "hex", "d": "oct", "e": "mac", "g": "ipv6", "h": "hex"}


NAMES = ["block:block_rq_issue", "sched:sched_process_exec", "sched:sched_process_exit", "sched:sched_switch", "signal:signal_generate"]


def test_names_and_globs_mean_events_each_once_in_their_order():
    assert match_events(["signal:*", "sched:sched_s*", "sched:sched_switch"], NAMES) == ["signal:signal_generate", "sched:sched_switch"]
    assert match_events(["*:*_ex[ei]*"], NAMES) == NAMES[1:3]
    assert match_events(["tracepoint:sched:sched_switch", "block/block_rq_issue"], NAMES) == ["sched:sched_switch", "block:block_rq_issue"]


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("sched:sched_proces_exit", "did you mean sched:sched_process_exit"),
        ("sched_switch", "did you mean sched:sched_switch?"),
        ("sched", "write sched:*"),
        ("shced:nothing_like_it", "`ringtape events 'sched:*'` lists that group"),
        ("zzz:*", "`ringtape events` lists all"),
    ],
)
def test_a_name_that_is_none_is_refused_with_what_was_meant(pattern, hint):
    with pytest.raises(UsageError) as caught:
        match_events([pattern], NAMES)
    assert caught.value.what == f"no event {pattern!r}"
    assert hint in (caught.value.hint or "")


def kernel_with(tmp_path: Path, monkeypatch, formats: dict[str, str | None]) -> Path:
    """Stand in for tracefs."""
    place = tmp_path / "tracing"
    for name, text in formats.items():
        folder = place / "events" / name.replace(":", "/")
        folder.mkdir(parents=True)
        if text is not None:
            (folder / "format").write_text(text)
    (place / "available_events").write_text("".join(f"{name}\n" for name in formats))
    monkeypatch.setattr(tracefs, "PLACES", (place,))
    return place


def test_an_event_without_a_readable_format_is_named_and_the_rest_is_recorded(tmp_path, monkeypatch):
    kernel_with(tmp_path, monkeypatch, {"block:block_rq_issue": BLOCK, "block:gone": None, "block:odd": "name: odd\nID: x\n"})
    choice = choose_events(["block:*"])
    assert [event.name for event in choice.events] == ["block:block_rq_issue"]
    assert choice.refused == (
        ("block:gone", "its format file cannot be read: no such file or directory"),
        ("block:odd", "its format file cannot be read: ID 'x' is no number of an event"),
    )


def test_if_no_event_is_left_there_is_one_error_that_says_why(tmp_path, monkeypatch):
    kernel_with(tmp_path, monkeypatch, {"block:gone": None})
    with pytest.raises(RecordingError, match=r"none of the events can be recorded \(block:gone: its format file cannot be read"):
        choose_events(["block:gone"])


def test_more_events_than_a_recording_takes_are_refused_with_their_number(tmp_path, monkeypatch):
    kernel_with(tmp_path, monkeypatch, {f"many:event{number}": None for number in range(257)})
    with pytest.raises(UsageError, match="names 257 events, more than the 256"):
        choose_events(["many:*"])


def test_without_tracefs_the_mount_is_the_hint(tmp_path, monkeypatch):
    monkeypatch.setattr(tracefs, "PLACES", (tmp_path / "nowhere",))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(RecordingError) as caught:
        choose_events(["a:b"])
    assert "mount -t tracefs" in (caught.value.hint or "")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(RecordingError) as caught:
        choose_events(["a:b"])
    assert "sudo" in (caught.value.hint or "")


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can try it as another user")
def test_an_ordinary_user_is_told_to_use_sudo():
    if find_tracefs().stat().st_mode & 0o005:
        pytest.skip("tracefs is for everyone here")
    setpriv = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    done = subprocess.run([*setpriv, sys.executable, "-c", CODE, "events"], capture_output=True, text=True, check=False, cwd="/", env=ENVIRONMENT)
    if "Permission denied" in done.stderr or "No module named" in done.stderr:
        pytest.skip("this checkout is closed to other users")
    assert done.returncode == 1
    assert "tracefs may not be read\nhint: run it with sudo" in done.stderr


def test_no_event_asked_for_looks_nowhere(monkeypatch):
    monkeypatch.setattr(tracefs, "PLACES", ())
    assert choose_events([]).events == ()
    assert Event("a:b", 1, ()).fixed_size == 0
