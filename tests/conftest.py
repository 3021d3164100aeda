"""What all tests share: whether BPF works here, and caches that stay out of a checkout that belongs to somebody else."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from hypothesis import configuration, settings

ROOT = Path(__file__).parent.parent
KERNEL = ROOT / "tests" / "kernel"

settings.register_profile("ringtape", deadline=None, print_blob=True)
settings.load_profile("ringtape")


def pytest_configure(config: pytest.Config) -> None:
    if os.geteuid() == 0 and ROOT.stat().st_uid != 0:
        # Root must leave no file behind in a user's checkout.
        settings.register_profile("foreign", settings.get_profile("ringtape"), database=None)
        settings.load_profile("foreign")
        configuration.set_hypothesis_home_dir(f"/tmp/ringtape-hypothesis.{os.getpid()}")


@cache
def why_no_bpf() -> str:
    """Return one sentence that says why nothing can be recorded here, or nothing."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from ringtape.cli import main; sys.exit(main())", "doctor", "--quiet"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode == 0:
        return ""
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return said[-1] if said else f"ringtape doctor ended with status {done.returncode}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = config.getoption("markexpr", "")
    kept = []
    for item in items:
        if item.path.is_relative_to(KERNEL):
            item.add_marker("kernel")
        if item.get_closest_marker("soak") is None or "soak" in asked:
            kept.append(item)
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("kernel") is None:
        return
    if reason := why_no_bpf():
        if os.environ.get("RINGTAPE_REQUIRE_BPF") == "1":
            pytest.fail(f"RINGTAPE_REQUIRE_BPF=1, but {reason}", pytrace=False)
        pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    report = yield
    if report.skipped and item.get_closest_marker("kernel") and os.environ.get("RINGTAPE_REQUIRE_BPF") == "1" and not hasattr(report, "wasxfail"):
        # A kernel test may also skip by itself: where BPF is required that is as silent a hole as any.
        report.outcome = "failed"
        report.longrepr = f"skipped under RINGTAPE_REQUIRE_BPF=1: {report.longrepr}"
    return report
