"""Rows as a pandas.DataFrame, for those who have pandas. Imports no torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from cvpods_ext.errors import ConfigError


def data_frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> Any:
    """A DataFrame of the rows, with `columns` in their order; ConfigError where pandas is not installed."""
    try:
        pandas = importlib.import_module("pandas")
    except ImportError:
        raise ConfigError("to_pandas needs pandas: pip install pandas") from None
    return pandas.DataFrame(list(rows), columns=columns)
