"""Numbers of a table in words."""

from collections.abc import Mapping
from typing import Any

import pandas as pd


def with_interval(row: Mapping[str, Any] | pd.Series, name: str, sign: str = "") -> str:
    """0.52 [0.41, 0.63], or the number alone where it has no interval.

    Args:
        row: of a table with the columns name, name.low and name.high.
        sign: "+" to write one before numbers above 0 too.
    """
    numbers: list[Any] = [row[key] for key in (name, f"{name}.low", f"{name}.high")]
    value, low, high = numbers
    if pd.isna(low):
        return f"{value:{sign}.2f}"
    return f"{value:{sign}.2f} [{low:{sign}.2f}, {high:{sign}.2f}]"
