"""`requestState`: bound to its call, and to nothing that a client can bend."""

from __future__ import annotations

from dataclasses import replace

import pytest

from milepost.core.records import ANONYMOUS, Principal
from milepost.wire.rpc import Refused
from milepost.wire.seal import Bound, Seal

OLD, NEW = b"o" * 32, b"n" * 32
ALICE = Principal("iss", "alice", "app", ("read",), person=True)
BOUND = Bound(ALICE, "tools/call", "book", {"pnr": "ABC", "n": 1})


def test_a_state_leads_to_its_run() -> None:
    seal = Seal([OLD], audience="travel")
    assert seal.open(seal.state("run-1", {2, 1}, BOUND), BOUND) == "run-1"


@pytest.mark.parametrize(
    "other",
    [
        replace(BOUND, principal=replace(ALICE, subject="bob")),
        replace(BOUND, principal=ANONYMOUS),
        replace(BOUND, tool="cancel"),
        replace(BOUND, method="prompts/get"),
        replace(BOUND, arguments={"pnr": "ABC", "n": 2}),
        replace(BOUND, arguments={"pnr": "ABC"}),
    ],
)
def test_a_state_for_another_request_is_refused(other: Bound) -> None:
    seal = Seal([OLD], audience="travel")
    with pytest.raises(Refused, match="Invalid or expired requestState"):
        seal.open(seal.state("run-1", (), BOUND), other)


def test_a_refreshed_token_with_other_scopes_is_the_same_principal() -> None:
    seal = Seal([OLD], audience="travel")
    refreshed = replace(BOUND, principal=replace(ALICE, scopes=("read", "write")))
    assert seal.open(seal.state("run-1", (), BOUND), refreshed) == "run-1"


def test_the_order_of_arguments_does_not_matter() -> None:
    seal = Seal([OLD], audience="travel")
    turned = replace(BOUND, arguments={"n": 1, "pnr": "ABC"})
    assert seal.open(seal.state("run-1", (), BOUND), turned) == "run-1"


def test_another_service_with_the_same_keys_is_refused() -> None:
    state = Seal([OLD], audience="travel").state("run-1", (), BOUND)
    with pytest.raises(Refused):
        Seal([OLD], audience="billing").open(state, BOUND)


def test_a_key_ring_opens_what_its_older_keys_sealed() -> None:
    state = Seal([OLD], audience="travel").state("run-1", (), BOUND)
    assert Seal([NEW, OLD], audience="travel").open(state, BOUND) == "run-1"
    with pytest.raises(Refused):
        Seal([NEW], audience="travel").open(state, BOUND)


def test_any_changed_character_is_refused() -> None:
    seal = Seal([OLD], audience="travel")
    state = seal.state("run-1", (), BOUND)
    for place in range(len(state)):
        bent = state[:place] + ("A" if state[place] != "A" else "B") + state[place + 1 :]
        with pytest.raises(Refused):
            seal.open(bent, BOUND)
