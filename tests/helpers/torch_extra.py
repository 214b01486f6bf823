"""PyTorch and what comes with it; tests that ask them skip where they are not installed."""

from typing import Any

import pytest


def of_torch_extra(name: str) -> Any:
    """A module of the extra `torch`; skips the test where there is none."""
    return pytest.importorskip(name, reason="asks PyTorch: needs the torch extra")
