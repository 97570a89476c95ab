"""The rows of a store in a form that another kind of store takes in (`milepost store copy`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one table, as PostgreSQL's store names tables and columns. Times are UTC seconds."""

    name: str
    columns: Sequence[str]
    """None where there are no rows."""
    rows: Iterable[Sequence[Any]]
