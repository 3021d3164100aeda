"""The machine as recordings and studies describe it."""

import os

from ringtape.schemas.host import describe_host, read_line


def test_the_host_is_described_by_what_figures_depend_on():
    host = describe_host()
    assert host["kernel"] == os.uname().release
    assert host["machine"] == os.uname().machine
    assert host["page_size"] == os.sysconf("SC_PAGE_SIZE")
    assert all(host[name] for name in ("name", "cpu", "cpus", "memory", "boot_id", "clocksource"))


def test_what_is_not_there_or_not_to_be_read_is_none(tmp_path):
    assert read_line(tmp_path / "absent") is None
    assert read_line(tmp_path) is None
    (tmp_path / "long").write_bytes(b" x\xff" * 4000 + b"\n")
    assert len(read_line(tmp_path / "long")) == 4000
