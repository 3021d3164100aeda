"""A trace folder is taken apart here in every way that comes to mind; each ends in one TraceError that names the file."""

import fcntl
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from ringtape.schemas.arrow import arrow_schema
from ringtape.schemas.errors import TraceError
from ringtape.schemas.folder import TraceFolder, part_file
from ringtape.schemas.manifest import FILE, Clock, Part, parse
from ringtape.schemas.table import tables
from tests import factory

ROWS = [{"nr": 39, "dur": 100 + index} for index in range(50)]


@pytest.fixture
def trace(tmp_path):
    return factory.make(tmp_path / "x.trace", parts=2, syscalls=ROWS)


def refused(action, *, names):
    with pytest.raises(TraceError) as caught:
        action()
    assert caught.value.what.startswith(str(names)), caught.value.what
    assert "\n" not in caught.value.what
    return caught.value.what


def rewrite(trace, change):
    """Write the manifest again, its lines changed, with right checksums."""
    manifest = parse((trace / FILE).read_bytes(), "m")
    lines = [manifest.header, *manifest.parts, *([manifest.footer] if manifest.footer else [])]
    factory.write_manifest(trace, [change(line) for line in lines])


def test_rows_and_identity_come_back(trace):
    folder = TraceFolder.open(trace)
    assert folder.state == "complete"
    assert folder.header.abi == "x86_64"
    assert folder.footer.rows["syscalls"] == 50
    assert set(folder.tables) == set(tables())
    first, second = folder.parts("syscalls")
    assert [part.rows for part in (first, second)] == [25, 25]
    assert folder.read(first)["dur"].to_pylist() == list(range(100, 125))
    assert folder.read(second, ["dur"]).column_names == ["dur"]
    assert folder.parts("paths") == ()


def test_the_state_says_how_the_trace_ended(tmp_path):
    assert TraceFolder.open(factory.make(tmp_path / "a", end="interrupted")).state == "interrupted"
    unfinished = factory.make(tmp_path / "b", end=None)
    assert TraceFolder.open(unfinished).state == "unfinished"
    with open(unfinished / FILE, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert TraceFolder.open(unfinished).state == "recording"
    assert TraceFolder.open(unfinished).state == "unfinished"


def test_a_line_cut_off_at_the_end_counts_as_absent(trace):
    whole = (trace / FILE).read_bytes()
    (trace / FILE).write_bytes(whole[:-5])
    folder = TraceFolder.open(trace)
    assert folder.manifest.cut
    assert folder.state == "unfinished"
    assert len(folder.parts("syscalls")) == 2


# ---- the folder and the manifest


def test_what_is_no_trace_folder_is_refused(tmp_path):
    assert "no such trace folder" in refused(lambda: TraceFolder.open(tmp_path / "absent"), names=tmp_path / "absent")
    assert f"no {FILE} in it" in refused(lambda: TraceFolder.open(tmp_path), names=tmp_path)
    file = tmp_path / "file"
    file.write_text("x")
    assert "not a folder" in refused(lambda: TraceFolder.open(file), names=file)
    with pytest.raises(TraceError, match="cannot be the name"):
        TraceFolder.open("a\0b")
    with pytest.raises(TraceError, match="name too long"):
        TraceFolder.open("x" * 5000)


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "device"])
def test_a_manifest_that_is_no_regular_file_is_refused_at_once(trace, kind):
    path = trace / FILE
    path.rename(trace / "moved")
    if kind == "link":
        path.symlink_to(trace / "moved")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif os.geteuid() != 0:
        pytest.skip("only root makes devices")
    else:
        os.mknod(path, 0o20600, os.makedev(1, 5))
    said = refused(lambda: TraceFolder.open(trace), names=path)
    assert said.endswith("too many levels of symbolic links" if kind == "link" else "not a regular file")


def test_a_manifest_that_is_larger_than_any_is_refused_without_reading_it(trace):
    os.truncate(trace / FILE, (1 << 30) + 1)
    assert "more than any manifest has" in refused(lambda: TraceFolder.open(trace), names=trace / FILE)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_manifest_that_may_not_be_read_is_refused(trace):
    (trace / FILE).chmod(0)
    assert "permission denied" in refused(lambda: TraceFolder.open(trace), names=trace / FILE)


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "syscalls/../syscalls/000000.parquet",
        "syscalls/../../x.parquet",
        "syscalls//000000.parquet",
        "./syscalls/000000.parquet",
        "syscalls/000000.parquet/",
        "syscalls/000000.parquet\n",
        "syscalls/000000.parquet\0",
        "syscalls/00000.parquet",
        "syscalls/\u0660\u0660\u0660\u0660\u0660\u0660.parquet",
        "syscalls/000000.PARQUET",
        "paths/000000.parquet",
        "SYSCALLS/000000.parquet",
        "manifest.jsonl",
        "",
    ],
)
def test_a_part_name_that_leads_anywhere_else_is_refused(trace, name):
    rewrite(trace, lambda line: replace(line, file=name) if isinstance(line, Part) and line.file == "syscalls/000000.parquet" else line)
    assert "is no name for a part of table 'syscalls'" in refused(lambda: TraceFolder.open(trace), names=trace / FILE)


@pytest.mark.parametrize("version", ["", "1", "1.0.0", "one", "1.", "-1.0", "1." + "9" * 100, "\u0661.0"])
def test_a_table_version_that_is_none_is_refused(trace, version):
    rewrite(
        trace,
        lambda line: replace(line, tables={**line.tables, "syscalls": version}) if not isinstance(line, Part) and hasattr(line, "tables") else line,
    )
    assert "which is no version" in refused(lambda: TraceFolder.open(trace), names=trace / FILE)


def test_a_table_of_a_newer_major_version_is_refused_by_name(trace):
    rewrite(trace, lambda line: replace(line, tables={**line.tables, "syscalls": "2.0"}) if hasattr(line, "tables") else line)
    said = refused(lambda: TraceFolder.open(trace), names=trace / FILE)
    assert "syscalls@2.0 is not a version that this ringtape reads (syscalls@" in said


def test_a_table_that_this_version_does_not_know_does_not_hide_the_others(trace):
    unknown = Part("gadgets", "gadgets/000000.parquet", 1, 4, "00" * 32, 0, 0, Clock(0, 0, 0))
    manifest = parse((trace / FILE).read_bytes(), "m")
    header = replace(manifest.header, tables={**manifest.header.tables, "gadgets": "1.0"})
    factory.write_manifest(trace, [header, *manifest.parts, unknown, manifest.footer])
    folder = TraceFolder.open(trace)
    assert "gadgets" not in folder.tables
    assert folder.read(folder.parts("syscalls")[0]).num_rows == 25
    (trace / "gadgets").mkdir()
    (trace / unknown.file).write_bytes(b"PAR1")
    with pytest.raises(TraceError):
        folder.read(folder.parts("gadgets")[0])


# ---- the parts


def first_part(trace):
    folder = TraceFolder.open(trace)
    part = folder.parts("syscalls")[0]
    return folder, part, folder.path_of(part)


@pytest.mark.parametrize("kind", ["absent", "link", "fifo", "folder", "socket", "empty", "longer", "shorter"])
def test_a_part_that_is_not_the_file_that_was_sealed_is_refused(trace, kind):
    folder, part, path = first_part(trace)
    data = path.read_bytes()
    path.unlink()
    reason = "not a regular file"
    if kind == "absent":
        reason = "no such file or directory"
    elif kind == "link":
        elsewhere = trace / "elsewhere"
        elsewhere.write_bytes(data)
        path.symlink_to(elsewhere)
        reason = "too many levels of symbolic links"
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        if os.geteuid() != 0:
            pytest.skip("only root makes such nodes")
        os.mknod(path, 0o140600)
        reason = ""
    else:
        path.write_bytes({"empty": b"", "longer": data + b"\0", "shorter": data[:-1]}[kind])
        reason = f"bytes where the manifest says {part.bytes}"
    for action in (lambda: folder.check(part), lambda: folder.read(part)):
        assert reason in refused(action, names=path)


def test_a_table_folder_that_is_a_link_is_refused(trace, tmp_path):
    folder, part, path = first_part(trace)
    path.parent.rename(tmp_path / "elsewhere")
    path.parent.symlink_to(tmp_path / "elsewhere")
    assert "not a directory" in refused(lambda: folder.read(part), names=path)


def test_no_flipped_bit_of_a_part_is_read(trace):
    folder, part, path = first_part(trace)
    data = path.read_bytes()
    for position in range(0, len(data), 7):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1 << position % 8]) + data[position + 1 :])
        assert "SHA-256" in refused(lambda: folder.read(part), names=path)
    path.write_bytes(data)
    assert folder.read(part).num_rows == part.rows


def reseal(trace, content, **changes):
    """Put other rows behind the first part's name, with a manifest line that is right about size and hash."""
    sealed = factory.write_part(trace, tables()["syscalls"], 0, content)
    rewrite(trace, lambda line: replace(sealed, **changes) if isinstance(line, Part) and line.file == sealed.file else line)


def test_a_sealed_file_that_is_no_parquet_is_refused(trace):
    folder, part, path = first_part(trace)
    for content in (b"", b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1", b"PAR1\xff\xff\xff\x7fPAR1", os.urandom(500)):
        path.write_bytes(content)
        other = replace(part, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        assert "unreadable as Parquet" in refused(lambda other=other: folder.read(other), names=path)


def test_columns_that_are_not_those_of_the_table_are_refused(trace):
    schema = arrow_schema(tables()["syscalls"])
    folder, part, _ = first_part(trace)
    good = folder.read(part)
    index = schema.get_field_index("nr")
    wrong = {
        "dropped": good.remove_column(index),
        "renamed": good.rename_columns(["number" if name == "nr" else name for name in good.column_names]),
        "swapped": good.select([*good.column_names[:-2], good.column_names[-1], good.column_names[-2]]),
        "widened": good.set_column(index, pa.field("nr", pa.int64(), nullable=False), good["nr"].cast(pa.int64())),
        "unsigned": good.set_column(index, pa.field("nr", pa.uint32(), nullable=False), good["nr"].cast(pa.uint32())),
        "nullable": good.set_column(index, pa.field("nr", pa.int32()), good["nr"]),
        "added": good.append_column(pa.field("extra", pa.int8(), nullable=False), pa.array([0] * 25, pa.int8())),
    }
    for name, rows in wrong.items():
        reseal(trace, rows.replace_schema_metadata(schema.metadata))
        folder, part, path = first_part(trace)
        assert "not a part of syscalls@" in refused(lambda folder=folder, part=part: folder.read(part), names=path), name
    reseal(trace, good.replace_schema_metadata({"table": "syscalls@1.9"}))
    folder, part, path = first_part(trace)
    assert "says it is 'syscalls@1.9'" in refused(lambda: folder.read(part), names=path)
    reseal(trace, good.replace_schema_metadata(schema.metadata), rows=24)
    folder, part, path = first_part(trace)
    assert "25 rows where the manifest says 24" in refused(lambda: folder.read(part), names=path)


def test_columns_that_a_newer_minor_version_added_are_passed_over(trace):
    table = tables()["syscalls"]
    major, minor = table.version.split(".")
    newer = f"{major}.{int(minor) + 1}"
    folder, part, _ = first_part(trace)
    good = folder.read(part)
    rows = good.append_column(pa.field("extra", pa.int8(), nullable=False), pa.array([0] * 25, pa.int8()))
    rows = rows.replace_schema_metadata({**arrow_schema(table).metadata, b"table": f"syscalls@{newer}".encode()})
    reseal(trace, rows)
    rewrite(trace, lambda line: replace(line, tables={**line.tables, "syscalls": newer}) if hasattr(line, "tables") else line)
    folder, part, _ = first_part(trace)
    assert folder.read(part).column_names == [column.name for column in table.columns]


def test_no_descriptor_is_left_open_by_a_refusal(trace):
    folder, part, path = first_part(trace)
    path.unlink()
    os.mkfifo(path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        refused(lambda: folder.read(part), names=path)
    (trace / FILE).unlink()
    (trace / FILE).mkdir()
    for _ in range(5):
        refused(lambda: TraceFolder.open(trace), names=trace / FILE)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_part_files_are_numbered_in_the_order_of_their_names():
    assert part_file("syscalls", 7) == "syscalls/000007.parquet"
    assert part_file("syscalls", 1234567) == "syscalls/1234567.parquet"
