"""What `make drill-client` prints: for each server, era and fault what became of the calls, beside the stock client."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from drills.bounds import upper
from drills.client import verdicts
from drills.client.conversation import OURS, STOCK
from drills.client.plan import BOOK, ERAS, FAULTS, SERVERS
from drills.client.told import FINISHED, KNOWN, UNKNOWN, Told
from drills.ledger import Effect
from drills.report import Report

_SHOWN = 60


@dataclass(slots=True)
class Record:
    """All that a drill has seen."""

    seed: int
    told: list[Told] = field(default_factory=list)
    effects: dict[str, list[Effect]] = field(default_factory=dict)
    """By conversation."""
    restarts: int = 0
    seconds: float = 0.0

    def of(self, told: Told) -> Sequence[Effect]:
        return self.effects.get(told.name, ())

    def pick(self, **wanted: Any) -> list[Told]:
        return [one for one in self.told if all(getattr(one, name) == value for name, value in wanted.items())]

    def violations(self) -> list[str]:
        """Of our client alone: what the stock one does is told, not judged."""
        return [line for told in self.pick(client=OURS) for line in verdicts.violations(told, self.of(told))]

    def never_hit(self) -> list[str]:
        """Faults that were planned and never hit anything: nothing was shown about them."""
        planned = {told.fault for told in self.told}
        return sorted(planned - {name for told in self.told for name in told.hits})

    def as_json(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "restarts": self.restarts,
            "violations": self.violations(),
            "never_hit": self.never_hit(),
            "conversations": [
                {**asdict(told), "effects": [asdict(effect) for effect in self.of(told)]} for told in self.told
            ],
        }


def rate(good: int, of: int) -> str:
    """`12 of 15, 80 % (> 56 %)`: the last is the lower end of the exact 95 % interval."""
    if not of:
        return "-"
    return f"{good} of {of}, {100 * good / of:.0f} % (> {100 * (1 - upper(of - good, of)):.0f} %)"


class Findings(Report):
    """Writes to one console."""

    def found(self, record: Record) -> bool:
        """All figures. False: something does not hold. A fault that never hit is named, for it shows nothing."""
        for server in SERVERS:
            if record.pick(server=server):
                self._server(record, server)
        self._rates(record)
        self._promises(record)
        lines, missing = record.violations(), record.never_hit()
        for line in lines[:_SHOWN]:
            self.say(f"VIOLATION {line}")
        for fault in missing:
            self.say(f"INCONCLUSIVE: {fault}: never hit")
        self.say(f"Violations: {len(lines)} (seed {record.seed})")
        return not lines

    def _server(self, record: Record, server: str) -> None:
        rows = [self._row(record, server, fault) for fault in FAULTS]
        heads = [
            "",
            *(f"{era} {head}" for era in ("h.", "m.") for head in ("hit", "finished", "known", "unknown", "stock")),
        ]
        title = (
            f"{server}: calls by the fault that hit them; handshake era (h.) and modern era (m.). "
            "stock: how many of those that it hit the SDK's own client finished"
        )
        self.table(title, heads, [row for row in rows if any(cell not in ("0", "-") for cell in row[1:])])

    def _row(self, record: Record, server: str, fault: str) -> list[str]:
        cells = [fault]
        for era in ERAS:
            hit = [one for one in record.pick(server=server, era=era, fault=fault, client=OURS) if one.struck]
            stock = [one for one in record.pick(server=server, era=era, fault=fault, client=STOCK) if one.struck]
            sorts: list[Callable[[Told], bool]] = [_finished, _known, _unknown]
            cells += [str(len(hit)), *(str(sum(map(sort, hit))) for sort in sorts)]
            cells.append(f"{sum(map(_finished, stock))}/{len(stock)}" if stock else "-")
        return cells

    def _rates(self, record: Record) -> None:
        rows = []
        for server in SERVERS:
            for era in ERAS:
                for tool in ("workflow", "other"):
                    row = [f"{server}, {era}, {tool}"]
                    for client in (OURS, STOCK):
                        hit = [
                            one
                            for one in _comparable(record, server, era, client)
                            if (one.tool == BOOK) == (tool == "workflow")
                        ]
                        row.append(rate(sum(map(_finished, hit)), len(hit)))
                        if client == OURS:
                            row += [str(sum(map(sort, hit))) for sort in (_known, _unknown)]
                        else:
                            row.append(str(sum(_doubled(record, one) for one in hit)))
                    rows.append(row)
        heads = ["", "milepost.client finished", "known", "unknown", "stock client finished", "its repeated effects"]
        self.table("Recovery, of the calls that a fault hit (without kills of the client, which the stock one has no "
                   "journal for)", heads, rows)  # fmt: skip

    def _promises(self, record: Record) -> None:
        ours = record.pick(client=OURS)
        struck = [told for told in ours if told.must_finish and told.hits]
        kills = sum(told.kills for told in ours)
        shown, cut = sum(map(verdicts.shown_again, ours)), sum(verdicts.in_flight(record.of(told)) for told in ours)
        for line in (
            f"Conversations: {len(record.told)}, of milepost.client {len(ours)}; servers killed {record.restarts} "
            f"times, clients {kills} times; {record.seconds:.0f} s.",
            f"Against Milepost, workflows and repeatable tools: {rate(sum(map(_finished, struck)), len(struck))} "
            "faulted calls finished.",
            f"Open questions shown again after the client's own death (no second asking): {shown}.",
            f"Steps there twice, under one idempotency key, cut by a server's death in flight (allowed): {cut}.",
        ):
            self.say(line)
        slow = sorted(told.seconds for told in struck)
        if slow:
            self.say(f"A faulted call against Milepost took {slow[len(slow) // 2]:.1f} s (p50), "
                     f"{slow[int(len(slow) * 0.95)]:.1f} s (p95), {slow[-1]:.1f} s (max).")  # fmt: skip


def _comparable(record: Record, server: str, era: str, client: str) -> list[Told]:
    """Those that a fault hit which both clients can be put to."""
    return [
        one
        for one in record.pick(server=server, era=era, client=client)
        if one.hits and not one.fault.startswith("client killed")
    ]


def _doubled(record: Record, told: Told) -> int:
    return any("times" in line for line in verdicts.violations(told, record.of(told)))


def _finished(told: Told) -> bool:
    return told.outcome == FINISHED


def _known(told: Told) -> bool:
    return told.outcome in KNOWN


def _unknown(told: Told) -> bool:
    return told.outcome == UNKNOWN
