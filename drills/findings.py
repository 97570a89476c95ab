"""What `make drill-replicas` prints: what each fault hit, what was lost, how long it took to go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from drills import checks
from drills.bounds import claim
from drills.checks import History
from drills.report import Report
from drills.strikes import FAULTS, LEASE, LEASED, Strike
from drills.talk import Resumption

AT_ONCE = 0.5
"""Seconds within which a client has come back at once."""
_SHOWN = 40


class Findings(Report):
    """Writes to one console."""

    def opening(self, seed: int, conversations: int, plan: Sequence[str], balancer: str) -> None:
        self.say(
            f"Drill of replicas with seed {seed}: {conversations} conversations, {len(plan)} strikes, "
            f"lease {LEASE:g} s, balancer: {balancer}."
        )

    def strike(self, strike: Strike, n: int, of: int) -> None:
        """One line for one strike."""
        hit = (
            f"{len(strike.steps)} steps, {strike.requests} requests, {strike.statements} statements, "
            f"{strike.messages} messages"
        )
        what = f"INCONCLUSIVE: {strike.missing}" if strike.missing else f"hit {hit}" if strike.hit else "hit nothing"
        self.say(f"strike {n:3}/{of}  {strike.fault:20}  {strike.until - strike.at:5.1f} s  {what}")

    def checked(self, history: History) -> bool:
        """The violations of a record."""
        return self._verdict(checks.violations(history), "read from the record")

    def found(
        self,
        history: History,
        strikes: Sequence[Strike],
        resumptions: Sequence[Resumption],
        failures: Sequence[str],
        seed: int,
    ) -> bool:
        """All figures. False: something does not hold, or a fault could not be brought about."""
        violations = [*failures, *checks.violations(history)]
        self.say("")
        self._faults(history, strikes, violations)
        self._conversations_held(history)
        self.effects(history)
        self._promises(history, strikes)
        self._went_on(history, strikes, resumptions)
        holds = self._verdict(violations, f"seed {seed}")
        nothing = inconclusive(strikes)
        for line in nothing:
            self.say(f"INCONCLUSIVE: {line}")
        return holds and not nothing

    def _faults(self, history: History, strikes: Sequence[Strike], violations: Sequence[str]) -> None:
        twice = _doubled_by(history, strikes)
        rows: list[list[object]] = []
        for fault in (name for name in FAULTS if any(strike.fault == name for strike in strikes)):
            made = [strike for strike in strikes if strike.fault == fault]
            hits = [strike for strike in made if strike.hit]
            lost = len(hits) if violations and hits else 0
            figures = (
                sum(len(strike.steps) for strike in hits),
                sum(strike.requests for strike in hits),
                sum(strike.statements + strike.messages for strike in hits),
            )
            told = "see below" if lost else claim(0, len(hits))
            rows.append([fault, len(made), len(hits), *figures, twice[fault], told])
        heads = ["", "made", "hit work", "steps", "requests", "statements or messages", "steps there twice", "lost"]
        self.table(
            "Faults, and what they were seen to hit (steps there twice: in flight, one key, allowed)", heads, rows
        )

    def _conversations_held(self, history: History) -> None:
        rows: list[list[object]] = []
        for era in ("handshake", "modern"):
            own = [told for told in history.told if told.era == era]
            done = sum(told.result is not None for told in own)
            counts = [(told.breaks, told.drops, len(told.acks), told.asked_which) for told in own] or [(0, 0, 0, 0)]
            rows.append([era, len(own), done, *(sum(each) for each in zip(*counts, strict=True))])
        heads = ["", "conversations", "with result", "breaks", "own drops", "answers acknowledged", "asked to join"]
        self.table("Conversations", heads, rows)

    def _promises(self, history: History, strikes: Sequence[Strike]) -> None:
        answers = sum(len(told.acks) for told in history.told)
        recorded = sum(entry.kind == "done" for run in history.runs for entry in run.entries)
        kills = sum(len(strike.disruptions) for strike in strikes if strike.fault.startswith("kill"))
        self.say(f"Processes killed: {kills}.")
        for what, check, of in (
            ("acknowledged answers lost", checks.acknowledged_kept, answers),
            ("recorded steps that ran again", checks.recorded_never_again, recorded),
            ("answered questions that were asked again", checks.not_asked_again, answers),
            ("conversations without their result", checks.results_told, len(history.told)),
        ):
            self.say(f"{what}: {claim(len(list(check(history))), of)}")

    # --- how long it took --------------------------------------------------------------------------------

    def _went_on(self, history: History, strikes: Sequence[Strike], resumptions: Sequence[Resumption]) -> None:
        at_once, otherwise = _split(strikes, resumptions)
        rows = [
            [
                "client came back at once to a live replica: to any word",
                *spread([one.first - one.broke for one in at_once]),
            ],
            ["the same, to something new", *spread(_new(at_once))],
            ["otherwise: to any word", *spread([one.first - one.broke for one in otherwise])],
            ["the same, to something new", *spread(_new(otherwise))],
        ]
        for fault in FAULTS:
            if waits := _taken_over(history, [strike for strike in strikes if strike.fault == fault]):
                rows.append([f"step in flight at '{fault}': until it ran again", *spread(waits)])
        heads = ["", "n", "p50", "p95", "p99", "max"]
        self.table("Time to go on (s)", heads, rows)
        broken = {fault: _new(_broken_by(fault, strikes, resumptions)) for fault in FAULTS}
        rows = [[fault, *spread(waits)] for fault, waits in broken.items() if waits]
        self.table("Clients whose connection broke, by the fault: to something new (s)", heads, rows)

    def _verdict(self, violations: Sequence[str], what: str) -> bool:
        for line in violations[:_SHOWN]:
            self.say(f"VIOLATION {line}")
        self.say(f"Violations: {len(violations)} ({what})")
        return not violations


def inconclusive(strikes: Sequence[Strike]) -> list[str]:
    """Faults about which nothing was shown: they could not be brought about here, or hit nothing."""
    missing = sorted({f"{strike.fault}: {strike.missing}" for strike in strikes if strike.missing})
    hit = {strike.fault for strike in strikes if strike.hit or strike.missing}
    return [*missing, *(f"{fault}: hit no work in flight" for fault in FAULTS if fault in
                        {strike.fault for strike in strikes} - hit)]  # fmt: skip


def _split(strikes: Sequence[Strike], resumptions: Sequence[Resumption]) -> tuple[list[Resumption], list[Resumption]]:
    """Those whose client was back at once on a live replica while no lease had to be waited for, and the others."""
    leased = [strike for strike in strikes if strike.fault in LEASED]
    at_once: list[Resumption] = []
    otherwise: list[Resumption] = []
    for one in resumptions:
        waits = any(strike.at - 0.2 <= one.broke <= strike.until + 0.5 for strike in leased)
        (otherwise if waits or one.back - one.broke > AT_ONCE else at_once).append(one)
    return at_once, otherwise


def _broken_by(fault: str, strikes: Sequence[Strike], resumptions: Sequence[Resumption]) -> list[Resumption]:
    windows = [(strike.at - 0.2, strike.until + 0.5) for strike in strikes if strike.fault == fault]
    return [one for one in resumptions if any(begin <= one.broke <= end for begin, end in windows)]


def _new(resumptions: Sequence[Resumption]) -> list[float]:
    return [one.new - one.broke for one in resumptions if one.new]


def _taken_over(history: History, strikes: Sequence[Strike]) -> list[float]:
    """From a fault to the next beginning of each step that it cut, by the ledger."""
    calls = checks.by_call(history)
    waits = []
    for strike in strikes:
        for step in strike.steps:
            later = [effect.begin for effect in calls[step.call] if effect.begin > strike.at and effect.pid != step.pid]
            if later:
                waits.append(min(later) - strike.at)
    return waits


def _doubled_by(history: History, strikes: Sequence[Strike]) -> Counter[str]:
    """Steps that are there twice, by the fault that cut them."""
    counted: Counter[str] = Counter()
    for effects in checks.by_call(history).values():
        for effect in effects if len(effects) > 1 else ():
            cause = checks.cause_of(effect, history)
            counted.update(strike.fault for strike in strikes if cause is not None and cause in strike.disruptions)
    return counted


def spread(seconds: Sequence[float]) -> list[str]:
    """Count, p50, p95, p99 and maximum."""
    if not seconds:
        return ["0", "-", "-", "-", "-"]
    rising = sorted(seconds)
    picked = [rising[min(len(rising) - 1, int(share * len(rising)))] for share in (0.5, 0.95, 0.99)]
    return [str(len(rising)), *(f"{value:.2f}" for value in (*picked, rising[-1]))]
