"""Runs the official client suite with `milepost.client.Client` (`make conformance-client`).

    python conformance/run_client.py [--keep DIR]

The suite starts `client.py` once per scenario, all of a set at the same time; `turn.py` lets no more of them run at
once than there are cores. Some scenarios watch the clock all the same, so what failed in the crowd is run once more,
alone, and the output says so. A real failure fails there too; more than a handful are no matter of crowding, and are
not run again. `suite.py` says how it is judged.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conformance.suite import (
    HERE,
    SETS,
    Failure,
    Score,
    Verdict,
    judge_set,
    kept_at,
    report,
    required,
    run_suite,
    say,
    scores,
    suite,
)

SCENARIO_LIMIT = 200_000
"""Milliseconds, as the suite takes it: waiting for a turn is in it. `client.py` has a limit of its own."""
AGAIN_AT_MOST = 5
"""Scenarios of a set that are run again."""
RESULTS = re.compile(r"^Passed: (?P<passed>\d+)/\d+, (?P<failed>\d+) failed", re.MULTILINE)


def judged_alone(output: str) -> Score:
    """One scenario's checks, as the suite says them of a run by itself; that also counts a client that broke off."""
    found = RESULTS.search(output)
    if found is None or "OVERALL: PASSED" not in output:
        return Score(0, 1)
    return Score(int(found["passed"]), int(found["failed"]))


def run_set(revision: str, suite_command: list[str], folder: Path) -> Verdict:
    """The verdict on a set. The suite's output is kept in `folder`."""
    say(f"running the client scenarios of {revision}")
    client = f"{sys.executable} -S -E {HERE / 'turn.py'} {folder} {sys.executable} {HERE / 'client.py'}"
    command = [*suite_command, "client", "--command", client, "--timeout", str(SCENARIO_LIMIT)]
    output = run_suite([*command, "--requirements", revision, "-o", str(folder / revision)])
    (folder / f"client-{revision}.txt").write_text(output)
    names, found = required(revision, suite_command, "Client"), scores(output)
    failing = judge_set(revision, names, found).failing
    if 0 < len(failing) <= AGAIN_AT_MOST:
        alone = [*command, "--spec-version", revision, "--force"]
        found |= dict(run_again(failing, alone, folder / f"client-{revision}-alone.txt"))
    say_others(found, names)
    return judge_set(revision, names, found)


def run_again(failing: tuple[str, ...], command: list[str], kept: Path) -> Iterator[tuple[str, Score]]:
    """Each scenario by itself, once."""
    with kept.open("w") as log:
        for name in failing:
            output = run_suite([*command, "--scenario", name])
            log.write(output)
            score = judged_alone(output)
            say(f"failed in the crowd and was run alone, once: {name} {'passed' if score.good else 'failed again'}")
            yield name, score


def say_others(found: Mapping[str, Score], names: list[str]) -> None:
    """What is no part of a revision (extensions, scenarios that came later) is run along, and counts for nothing."""
    others = {name: score.good for name, score in found.items() if name not in names}
    passed = ", ".join(name for name, good in others.items() if good) or "none"
    failed = ", ".join(name for name, good in others.items() if not good) or "none"
    say(f"not required: passed {passed}; failed {failed}")


def main() -> int:
    options = argparse.ArgumentParser(description="Run the official client suite with milepost.client.")
    options.add_argument("--keep", type=Path, metavar="DIR", help="keep the suite's output here")
    chosen = options.parse_args()
    try:
        with kept_at(chosen.keep) as folder:
            command = suite()
            verdicts = [run_set(revision, command, folder) for revision in SETS]
    except (Failure, subprocess.TimeoutExpired) as failure:
        print(f"conformance could not be run: {failure}", file=sys.stderr)
        return 1
    return 0 if report(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
