"""Where the reference data of the tests lives: `../shared` beside the checkout, or PODS_SHARED."""

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("PODS_SHARED", Path(__file__).resolve().parents[3] / "shared")).resolve()


def shared(relative: str) -> Path:
    """Path below the shared folder; the test is skipped where it is absent."""
    path = ROOT / relative
    if not path.exists():
        pytest.skip(f"reference data {relative} is absent (looked in {ROOT}; set PODS_SHARED)")
    return path
