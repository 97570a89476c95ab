"""docs/reliability.md names tests for its claims: they exist, and no hazard's test is missing from it."""

from __future__ import annotations

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "reliability.md"

_NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
_HAZARD = re.compile(r"test_hazard_((?:p2_)?[a-e]?\d+)_")
_FAULT = re.compile(r"F\d+\Z")
"""A fault of the matrix: a hazard's test may show it too."""
_LAST = {"A": 4, "B": 8, "C": 6, "D": 6, "E": 3, "P2.": 24}
"""The last number of each group of hazards."""


def rows() -> list[list[str]]:
    """The cells of every table row of the page that names a test."""
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ") and "::test_" in line]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def named_in(cell: str) -> list[tuple[str, str]]:
    """(file below tests/, test) for each test that a cell names."""
    return [(found[1], found[2]) for found in _NAMED.finditer(cell)]


@cache
def functions_of(path: Path) -> frozenset[str]:
    """Names of the test functions of a file, in and out of classes."""
    tree = ast.parse(path.read_text("utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def hazard_of(test: str) -> str | None:
    """The hazard's id in a test's name: `test_hazard_p2_3_...` -> P2.3."""
    found = _HAZARD.match(test)
    return found[1].upper().replace("P2_", "P2.") if found else None


def test_every_test_that_the_page_names_exists() -> None:
    named = [place for row in rows() for place in named_in(row[-1])]
    assert len(named) > 100
    gone = [f"{file}::{test}" for file, test in named if test not in functions_of(TESTS / file)]
    assert gone == []


def test_every_hazard_has_one_row_and_its_tests_bear_its_name() -> None:
    of_hazards = [row for row in rows() if not _FAULT.match(row[0])]
    ids = [row[0] for row in of_hazards if any(test.startswith("test_hazard_") for _, test in named_in(row[-1]))]
    wanted = [f"{group}{n}" for group, last in _LAST.items() for n in range(1, last + 1)]
    assert len(ids) == len(set(ids))
    assert set(wanted) <= set(ids)
    strays = [
        f"{test} in the row of {row[0]}"
        for row in of_hazards
        for _, test in named_in(row[-1])
        if hazard_of(test) not in (None, row[0])
    ]
    assert strays == []


def test_every_fault_of_the_matrix_has_one_row_with_a_test() -> None:
    assert [row[0] for row in rows() if _FAULT.match(row[0])] == [f"F{n}" for n in range(1, 23)]


def test_every_test_of_a_hazard_is_on_the_page() -> None:
    listed = {place for row in rows() for place in named_in(row[-1])}
    there = {
        (path.relative_to(TESTS).as_posix(), test)
        for path in TESTS.rglob("*.py")
        if "node_modules" not in path.parts
        for test in functions_of(path)
        if test.startswith("test_hazard_")
    }
    assert sorted(there - listed) == []


def test_the_table_of_settings_is_made_from_the_settings() -> None:
    """After a change: `python scripts/settings_doc.py`."""
    spec = importlib.util.spec_from_file_location("settings_doc", TESTS.parent / "scripts" / "settings_doc.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    text = made.PAGE.read_text("utf-8")
    assert text == made.page_with(text)
