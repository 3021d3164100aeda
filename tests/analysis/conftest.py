from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a test may write one trace."""
    return tmp_path / "run.trace"
