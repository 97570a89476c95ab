"""What the conformance runs count as passed: nothing that did not run, and nothing that checked nothing."""

from __future__ import annotations

import pytest

from conformance import run_client, suite

SUMMARY = """
✓ noise: 9 passed, 0 failed
=== SUMMARY ===
✓ ping: 2 passed, 0 failed
✗ tools-list: 2 passed, 1 failed
✓ tasks-status: 0 passed, 0 failed
✓ server-sse-polling: 1 passed, 0 failed
"""

CLIENT_SUMMARY = """
✓ noise: 9 passed, 0 failed
=== SUITE SUMMARY ===

✓ tools_call: 2 passed, 0 failed
✗ auth/basic-cimd: 12 passed, 0 failed, 1 warnings
✗ sse-retry: 2 passed, 1 failed

Total: 16 passed, 1 failed, 1 warnings
"""

LISTING = """Required for 2025-11-25 (4 scenarios, frozen; run at the 2025-11-25 wire):

Server scenarios (test against a server):
  - ping
  - tools-list

Client scenarios (test against a client):
  - tools_call
  - auth/basic-cimd

Run and reported, but never scored:
  extension (1):
    - auth/dpop [client]
"""


def test_a_set_is_full_only_when_every_scenario_of_it_passed() -> None:
    verdict = suite.judge_set("2026-07-28", ["ping"], suite.scores(SUMMARY))
    assert (verdict.passed, verdict.required, verdict.full) == (1, 1, True)


@pytest.mark.parametrize("name", ["tools-list", "tasks-status", "never-ran", "noise"])
def test_a_scenario_that_failed_checked_nothing_or_never_ran_counts_as_failed(name: str) -> None:
    verdict = suite.judge_set("2026-07-28", ["ping", name], suite.scores(SUMMARY))
    assert verdict.failing == (name,)
    assert not verdict.full


def test_an_extra_scenario_needs_all_its_checks() -> None:
    assert not suite.judge_extra("server-sse-polling", 3, suite.scores(SUMMARY)).full
    assert suite.judge_extra("ping", 2, suite.scores(SUMMARY)).full


@pytest.mark.parametrize("name", ["auth/basic-cimd", "sse-retry", "noise"])
def test_a_client_scenario_fails_by_a_warning_too(name: str) -> None:
    verdict = suite.judge_set("2025-11-25", ["tools_call", name], suite.scores(CLIENT_SUMMARY))
    assert verdict.failing == (name,)


def test_what_is_required_is_read_from_the_list_of_the_side_that_is_tested() -> None:
    assert suite.required_in(LISTING, "Server") == ["ping", "tools-list"]
    assert suite.required_in(LISTING, "Client") == ["tools_call", "auth/basic-cimd"]


@pytest.mark.parametrize(
    ("output", "good"),
    [
        ("Test Results:\nPassed: 3/3, 0 failed, 0 warnings\n\n✅ OVERALL: PASSED", True),
        ("Test Results:\nPassed: 2/3, 1 failed, 0 warnings\n\n❌ OVERALL: FAILED", False),
        ("Test Results:\nPassed: 3/3, 0 failed, 0 warnings\n\nCLIENT TIMED OUT\n\n❌ OVERALL: FAILED", False),
        ("Test Results:\nPassed: 0/0, 0 failed, 0 warnings\n\n✅ OVERALL: PASSED", False),
        ("Client test error: no such file", False),
    ],
)
def test_a_scenario_that_is_run_alone_has_to_pass_whole(output: str, good: bool) -> None:
    assert run_client.judged_alone(output).good is good


def test_an_empty_or_a_broken_set_is_no_success() -> None:
    assert not suite.report([suite.Verdict("2026-07-28", 0, 0)])
    assert not suite.report([suite.Verdict("2026-07-28", 1, 1), suite.Verdict("2025-11-25", 1, 2, ("sse-retry",))])


def test_without_npm_the_suite_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite.shutil, "which", lambda name: None)
    with pytest.raises(suite.Failure, match="npm was not found"):
        suite.install()
