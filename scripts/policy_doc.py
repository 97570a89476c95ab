"""Writes the table of limits in docs/client.md from the fields of `milepost.client.Policy` and their docs.

    python scripts/policy_doc.py

A test compares what stands there with what this makes, so the page can't drift from the code.
"""

from __future__ import annotations

import ast
import inspect
import sys
from itertools import pairwise
from pathlib import Path

from milepost.client import Policy

PAGE = Path(__file__).parents[1] / "docs" / "client.md"
BEGIN, END = "<!-- policy: made by scripts/policy_doc.py -->", "<!-- /policy -->"


def table() -> str:
    """All limits as Markdown."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(Policy)).body if isinstance(node, ast.ClassDef))
    rows = [_row(field, after) for field, after in pairwise([*body, ast.Pass()]) if isinstance(field, ast.AnnAssign)]
    return "\n".join(["| limit | default | meaning |", "|---|---|---|", *rows])


def _row(field: ast.AnnAssign, after: ast.stmt) -> str:
    name = ast.unparse(field.target)
    doc = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
    return f"| `{name}` | {_shown(getattr(Policy(), name))} | {' '.join(str(doc).split())} |"


def _shown(value: float) -> str:
    mebibytes, rest = divmod(value, 2**20)
    return f"{value:g}" if rest or not mebibytes else f"{mebibytes:g} MiB"


def page_with(text: str) -> str:
    """The page with the table of today between the marks."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    before = PAGE.read_text("utf-8")
    PAGE.write_text(page_with(before), "utf-8")
    sys.stdout.write("nothing to do\n" if page_with(before) == before else f"{PAGE.name} was brought up to date\n")
