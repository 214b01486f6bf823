"""Real data that lies beside the repository; tests of it skip where it is absent."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[3] / "shared" / "data"


def shared_file(name: str) -> str:
    """The path of a file of the shared data; skips the test where there is none."""
    if not (SHARED / name).is_file():
        pytest.skip(f"the shared data is absent: {SHARED / name}")
    return str(SHARED / name)
