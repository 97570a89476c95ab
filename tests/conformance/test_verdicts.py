"""What `make conformance` counts as passed: nothing that did not run, and nothing that checked nothing."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

from processes import ROOT


@pytest.fixture(scope="module")
def run() -> ModuleType:
    spec = importlib.util.spec_from_file_location("conformance_run", ROOT / "conformance" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


SUMMARY = """
✓ noise: 9 passed, 0 failed
=== SUMMARY ===
✓ ping: 2 passed, 0 failed
✗ tools-list: 2 passed, 1 failed
✓ tasks-status: 0 passed, 0 failed
✓ server-sse-polling: 1 passed, 0 failed
"""


def test_a_set_is_full_only_when_every_scenario_of_it_passed(run: ModuleType) -> None:
    verdict = run.judge_set("2026-07-28", ["ping"], run.scores(SUMMARY))
    assert (verdict.passed, verdict.required, verdict.full) == (1, 1, True)


@pytest.mark.parametrize("name", ["tools-list", "tasks-status", "never-ran", "noise"])
def test_a_scenario_that_failed_checked_nothing_or_never_ran_counts_as_failed(run: ModuleType, name: str) -> None:
    verdict = run.judge_set("2026-07-28", ["ping", name], run.scores(SUMMARY))
    assert verdict.failing == (name,)
    assert not verdict.full


def test_an_extra_scenario_needs_all_its_checks(run: ModuleType) -> None:
    assert not run.judge_extra("server-sse-polling", 3, run.scores(SUMMARY)).full
    assert run.judge_extra("ping", 2, run.scores(SUMMARY)).full


def test_without_npm_the_suite_says_what_to_install(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.shutil, "which", lambda name: None)
    with pytest.raises(run.Failure, match="npm was not found"):
        run.install()
