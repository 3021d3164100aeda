"""What the examples in the documentation work on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ringtape import Trace


@pytest.fixture
def example_trace(tmp_path: Path) -> Trace:
    """Return a trace of five calls by one process."""
    import ringtape
    from tests.factory import T0, make

    return ringtape.open(
        make(
            tmp_path / "example.trace",
            header={"command": ["cat", "a file"]},
            processes=[
                {"ts": T0, "kind": 2, "pid": 100, "ppid": 99, "start": T0 - 50, "comm": b"cat", "file": b"/bin/cat", "argv": b"cat\0a file\0"},
                {"ts": T0 + 10_000, "kind": 3, "pid": 100, "ppid": 99, "start": T0 - 50, "comm": b"cat", "exit_code": 1, "group_dead": 1},
            ],
            paths=[
                {"ts": T0 + 1000, "nr": 257, "pid": 100, "arg": 1, "value": b"a file"},
                {"ts": T0 + 5000, "nr": 257, "pid": 100, "arg": 1, "value": b"/nowhere"},
            ],
            syscalls=[
                {"ts": T0 + 1000, "nr": 257, "arg0": -100, "pid": 100, "dur": 1000, "ret": 3},
                {"ts": T0 + 2000, "nr": 0, "arg0": 3, "pid": 100, "dur": 100, "ret": 5},
                {"ts": T0 + 3000, "nr": 0, "arg0": 3, "pid": 100, "dur": 200, "ret": 5},
                {"ts": T0 + 4000, "nr": 0, "arg0": 3, "pid": 100, "dur": 300},
                {"ts": T0 + 5000, "nr": 257, "arg0": -100, "pid": 100, "dur": 2000, "ret": -2},
            ],
        )
    )


@pytest.fixture
def block_trace(tmp_path: Path) -> Trace:
    """Return a trace of three reads of 4 KiB, 4 KiB and 8 KiB: the second is sequential, and at the device together with the third."""
    import ringtape
    from tests.factory import T0, make

    common = {"disk": b"vda", "dev": 254 << 20, "pid": 100, "insert": -1}
    return ringtape.open(
        make(
            tmp_path / "block.trace",
            block=[
                {**common, "ts": T0 + 1000, "dur": 100, "issue": 10, "service": 90, "sector": 800, "bytes": 4096},
                {**common, "ts": T0 + 2000, "dur": 220, "issue": 20, "service": 200, "sector": 808, "bytes": 4096},
                {**common, "ts": T0 + 2100, "dur": 80, "issue": 5, "service": 75, "sector": 80, "bytes": 8192},
            ],
        )
    )
