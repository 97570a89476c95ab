"""Conformance: the life of an attempt. Claim, append, settle, extend."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from milepost.core.attempts import Batch, Created, End, EndKind
from milepost.core.errors import Fenced, StoreError, UnknownRun
from milepost.core.outside import Action, ActionKind
from milepost.core.records import Delivery, EntryKind, EventKind, Lane, NewEvent, Outcome, Principal, QuestionState
from milepost.core.states import RunState
from milepost.seams import Store
from store.making import (
    ANN,
    DONE,
    LEASE,
    accept,
    ask,
    asking,
    claim_one,
    claimant,
    entry,
    new_run,
    new_stream,
    ready,
    start,
    state_of,
    told,
    waiting,
)
from store.worlds import SqliteWorld as World


class ClaimContract:
    async def test_a_ready_run_is_claimed_once(self, store: Store) -> None:
        run_id = await ready(store)
        claim = await claim_one(store)
        assert claim is not None
        assert (claim.run.id, claim.run.state, claim.takeover) == (run_id, RunState.RUNNING, False)
        assert await claim_one(store) is None

    async def test_hazard_a4_only_accepted_tools_and_versions_are_claimed(self, store: Store) -> None:
        await ready(store, version=2)
        await ready(store, tool="other")
        assert await claim_one(store) is None
        claim = await claim_one(store, accepts=[("rebook", 2)])
        assert claim is not None
        assert claim.run.version == 2

    async def test_a_run_given_to_a_release_is_claimed_by_its_replicas_only(self, store: Store) -> None:
        await ready(store, given_to="blue")
        assert await claim_one(store, release="green") is None
        assert await claim_one(store) is None
        claim = await claim_one(store, release="blue")
        assert claim is not None
        assert claim.run.given_to == "blue"

    async def test_the_run_that_is_due_longest_goes_first(self, store: Store) -> None:
        ids = [await ready(store, version=1 + n % 2) for n in range(6)]
        claims = await store.claim(claimant(accepts=[("rebook", 1), ("rebook", 2)]), limit=4, takeovers=0)
        assert [claim.run.id for claim in claims] == ids[:4]

    async def test_many_claimers_get_disjoint_runs(self, store: Store, world: World) -> None:
        ids = {await ready(store) for _ in range(60)}
        stores = [store, await world.open(), await world.open()]
        rounds = [s.claim(claimant(f"r{n}"), limit=7, takeovers=0) for n in range(4) for s in stores]
        claims = [claim.run.id for found in await asyncio.gather(*rounds) for claim in found]
        assert len(claims) == len(set(claims)) == 60
        assert set(claims) == ids

    async def test_a_run_is_taken_over_when_its_lease_is_over(self, store: Store, world: World) -> None:
        claim = await start(store)
        world.clock.advance(LEASE - 1)
        assert await claim_one(store, "r2") is None
        world.clock.advance(2)
        taken = await claim_one(store, "r2")
        assert taken is not None
        assert (taken.run.id, taken.takeover, taken.run.crashes, taken.run.epoch) == (claim.run.id, True, 1, 2)

    async def test_hazard_b1_a_claim_says_since_when_its_lease_counts(self, store: Store, world: World) -> None:
        made = await start(store)
        assert made.since == world.clock.boot()
        world.clock.advance(LEASE + 1)
        taken = await claim_one(store, "r2")
        assert taken is not None
        assert taken.since == world.clock.boot()

    async def test_hazard_c5_takeovers_are_few_at_a_time(self, store: Store, world: World) -> None:
        for _ in range(5):
            await start(store)
        await ready(store)
        world.clock.advance(LEASE + 1)
        claims = await store.claim(claimant("r2"), limit=10, takeovers=2)
        assert [claim.takeover for claim in claims] == [True, True, False]

    async def test_a_hot_run_that_lost_its_replica_is_claimed_by_any_replica(self, store: Store, world: World) -> None:
        claim = await start(store, lane=Lane.HOT, tool="unheard-of")
        world.clock.advance(LEASE + 1)
        taken = await claim_one(store, "r2", accepts=[])
        assert taken is not None
        assert taken.run.id == claim.run.id

    async def test_hazard_c5_a_run_that_crashed_twice_waits_longer_each_time(self, store: Store, world: World) -> None:
        await start(store)
        pauses = []
        for _ in range(5):
            world.clock.advance(LEASE + 1)
            claim = await claim_one(store)
            while claim is None:
                swept = await store.sweep(limit=100)
                assert swept.next_in is not None
                pauses.append(swept.next_in)
                world.clock.advance(swept.next_in)
                claim = await claim_one(store)
        assert pauses == [1.0, 2.0, 4.0]
        assert (claim.run.crashes, claim.takeover) == (5, True)

    async def test_a_recorded_step_ends_a_series_of_crashes(self, store: Store, world: World) -> None:
        await start(store)
        world.clock.advance(LEASE + 1)
        claim = await claim_one(store)
        assert claim is not None
        await store.append(claim.fence, Batch([entry(1, EntryKind.BEGUN, value=None)]), lease=LEASE)
        loaded = await store.load(claim.run.id)
        assert loaded is not None
        assert loaded.run.crashes == 1, "a step that only began may be what crashes"
        await store.append(claim.fence, Batch([entry(2)]), lease=LEASE)
        loaded = await store.load(claim.run.id)
        assert loaded is not None
        assert loaded.run.crashes == 0

    async def test_a_replica_that_leaves_gives_its_runs_back_at_once(self, store: Store, world: World) -> None:
        other = await world.open()
        await other.join("r2")
        claim = await start(other, "r2")
        await other.leave("r2")
        taken = await claim_one(store)
        assert taken is not None
        assert taken.run.id == claim.run.id

    async def test_hazard_e2_runs_with_entries_of_a_newer_format_are_left_to_newer_releases(self, world: World) -> None:
        newer = await world.open(entry_format=2)
        claim = await start(newer)
        await newer.append(claim.fence, Batch([entry(1)]), lease=LEASE)
        await newer.settle(claim.fence, End(EndKind.RELEASE))
        older = await world.open(entry_format=1)
        assert await claim_one(older) is None
        assert await claim_one(newer) is not None


class AppendContract:
    async def test_what_was_appended_is_loaded_in_order(self, store: Store, world: World) -> None:
        claim = await start(store)
        await store.append(claim.fence, Batch([entry(1, EntryKind.BEGUN, value=None), entry(2)]), lease=LEASE)
        await store.append(claim.fence, Batch([entry(3, key="k", occurrence=2)], [], [], "paying", 0.5), lease=LEASE)
        loaded = await store.load(claim.run.id)
        assert loaded is not None
        assert [(e.n, e.kind, e.value, e.epoch) for e in loaded.entries] == [
            (1, EntryKind.BEGUN, None, 1), (2, EntryKind.DONE, '{"found":1}', 1), (3, EntryKind.DONE, '{"found":1}', 1),
        ]  # fmt: skip
        assert (loaded.entries[2].key, loaded.entries[2].occurrence, loaded.entries[2].at) == (
            "k",
            2,
            world.clock.wall(),
        )
        assert (loaded.run.journal_seq, loaded.run.stage, loaded.run.progress) == (3, "paying", 0.5)

    async def test_a_stage_is_left_alone_cleared_or_set_and_progress_never_falls(self, store: Store) -> None:
        claim = await start(store)
        for stage, progress, expected in (("a", 2.0, ("a", 2.0)), (None, 1.0, ("a", 2.0)), ("", None, (None, 2.0))):
            await store.append(claim.fence, Batch(stage=stage, progress=progress), lease=LEASE)
            loaded = await store.load(claim.run.id)
            assert loaded is not None
            assert (loaded.run.stage, loaded.run.progress) == expected

    async def test_a_late_append_after_a_takeover_is_fenced_and_writes_nothing(
        self, store: Store, world: World
    ) -> None:
        claim = await start(store)
        world.clock.advance(LEASE + 1)
        await claim_one(store, "r2")
        with pytest.raises(Fenced):
            await store.append(claim.fence, Batch([entry(1)], events=[NewEvent(EventKind.NOTIFY, {})]), lease=LEASE)
        with pytest.raises(Fenced):
            await store.settle(claim.fence, DONE)
        loaded = await store.load(claim.run.id)
        assert loaded is not None
        assert (loaded.entries, loaded.run.event_seq) == ([], 0)

    async def test_hazard_b2_a_fence_is_random_not_a_counter(self, store: Store) -> None:
        claim = await start(store)
        with pytest.raises(Fenced):
            await store.append(replace(claim.fence, attempt_id="1"), Batch([entry(1)]), lease=LEASE)
        assert len(claim.fence.attempt_id) == 32

    async def test_a_gap_in_the_journal_is_refused(self, store: Store) -> None:
        claim = await start(store)
        with pytest.raises(StoreError, match="goes on with entry 1"):
            await store.append(claim.fence, Batch([entry(2)]), lease=LEASE)
        told_of = await store.append(claim.fence, Batch([entry(1)]), lease=LEASE)
        assert told_of.event_seq == 0

    async def test_hazard_b7_the_same_append_again_changes_nothing(self, store: Store) -> None:
        claim = await start(store)
        batch = Batch([entry(1), entry(2)], events=[NewEvent(EventKind.NOTIFY, {"method": "m"})])
        first = await store.append(claim.fence, batch, lease=LEASE)
        assert await store.append(claim.fence, batch, lease=LEASE) == first
        loaded = await store.load(claim.run.id)
        assert loaded is not None
        assert (len(loaded.entries), loaded.run.journal_seq, loaded.run.event_seq) == (2, 2, 1)

    async def test_an_append_extends_the_lease(self, store: Store, world: World) -> None:
        claim = await start(store)
        world.clock.advance(LEASE - 1)
        await store.append(claim.fence, Batch(), lease=LEASE)
        world.clock.advance(LEASE - 1)
        assert await claim_one(store, "r2") is None

    async def test_only_working_time_counts(self, store: Store, world: World) -> None:
        claim = await start(store)
        world.clock.advance(2)
        told_of = await store.append(claim.fence, asking(1), lease=LEASE)
        assert told_of.working == pytest.approx(2.0)
        world.clock.advance(3)
        await store.settle(claim.fence, End(EndKind.SUSPEND, 0, frozenset({1})))
        world.clock.advance(1000)
        await store.answer(claim.run.id, {1: accept()}, by=ANN, via="link")
        again = await claim_one(store)
        assert again is not None
        assert again.run.working == pytest.approx(5.0)

    async def test_hazard_c4_work_before_a_crash_counts_up_to_the_end_of_the_lease(
        self, store: Store, world: World
    ) -> None:
        await start(store)
        world.clock.advance(500)
        taken = await claim_one(store, "r2")
        assert taken is not None
        assert taken.run.working == pytest.approx(LEASE)

    async def test_an_attempt_is_told_of_wakes_and_cancels(self, store: Store) -> None:
        claim = await start(store)
        await store.append(claim.fence, asking(1), lease=LEASE)
        await store.answer(claim.run.id, {1: accept()}, by=ANN, via="link")
        told_of = await store.append(claim.fence, Batch(), lease=LEASE)
        assert (told_of.wake_seq, told_of.cancel) == (1, None)
        await store.steer(claim.run.id, Action(ActionKind.CANCEL, "operator"))
        told_of = await store.append(claim.fence, Batch(), lease=LEASE)
        assert (told_of.wake_seq, told_of.cancel) == (2, "operator")

    async def test_large_values_are_left_out_of_load_and_fetched_on_use(self, world: World) -> None:
        store = await world.open(inline=10)
        claim = await start(store)
        await store.append(
            claim.fence, Batch([entry(1, value="1"), entry(2, value='"' + "x" * 5000 + '"')]), lease=LEASE
        )
        loaded = await store.load(claim.run.id)
        assert loaded is not None
        assert [(e.value, e.size) for e in loaded.entries] == [("1", 1), (None, 5002)]
        assert len(await store.value(claim.run.id, 2)) == 5002
        with pytest.raises(UnknownRun):
            await store.value(claim.run.id, 3)

    async def test_a_long_journal_is_loaded_whole(self, store: Store) -> None:
        claim = await start(store)
        await store.append(claim.fence, Batch([entry(n) for n in range(1, 501)]), lease=LEASE)
        loaded = await store.load(claim.run.id)
        assert loaded is not None
        assert [e.n for e in loaded.entries] == list(range(1, 501))

    async def test_hazard_d2_events_have_one_gapless_order_whoever_writes_them(
        self, store: Store, world: World
    ) -> None:
        other = await world.open()
        claim = await start(store)
        numbers = range(1, 11)
        await store.append(claim.fence, Batch(questions=asking(*numbers).questions), lease=LEASE)
        appends = [
            store.append(claim.fence, Batch(events=[NewEvent(EventKind.NOTIFY, {"n": n})] * 3), lease=LEASE)
            for n in numbers
        ]
        answers = [other.answer(claim.run.id, {n: accept()}, by=ANN, via="link") for n in numbers]
        await asyncio.gather(*appends, *answers)
        assert len(await told(store, claim.run.id)) == 40

    async def test_events_are_read_on_from_any_point(self, store: Store) -> None:
        claim = await start(store)
        await store.append(
            claim.fence, Batch(events=[NewEvent(EventKind.NOTIFY, {"n": n}) for n in range(120)]), lease=LEASE
        )
        assert [e.n for e in await store.events(claim.run.id, after=117)] == [118, 119, 120]
        assert [e.n for e in await store.events(claim.run.id, after=0, limit=70)] == list(range(1, 71))
        assert len(await store.events(claim.run.id, after=0)) == 120
        assert await store.events(claim.run.id, after=10**12) == []

    async def test_a_heartbeat_extends_what_is_held_and_names_no_other(self, store: Store, world: World) -> None:
        mine, lost = await start(store), await start(store)
        world.clock.advance(LEASE - 1)
        await store.append(mine.fence, Batch(), lease=LEASE)
        world.clock.advance(2)
        taken = await claim_one(store, "r2")
        assert taken is not None
        held = await asyncio.to_thread(store.extend, "r1", [mine.fence, lost.fence], lease=LEASE)
        assert set(held) == {mine.fence.attempt_id}
        assert held[mine.fence.attempt_id].working == pytest.approx(LEASE + 1)
        world.clock.advance(LEASE - 1)
        assert await claim_one(store, "r3") is None


class SettleContract:
    async def test_a_finished_run_says_its_result_last(self, store: Store) -> None:
        claim = await start(store)
        end = replace(DONE, batch=Batch([entry(1)], events=[NewEvent(EventKind.NOTIFY, {"method": "m"})]))
        run = await store.settle(claim.fence, end)
        loaded = await store.load(run.id)
        assert loaded is not None
        assert loaded.run == run
        assert (run.state, run.delivery, run.attempt_id, run.owner) == (RunState.COMPLETED, Delivery.UNSENT, None, None)
        events = await told(store, run.id)
        assert [event.kind for event in events] == [EventKind.NOTIFY, EventKind.RESULT]
        assert Outcome(**events[-1].body) == DONE.outcome

    @pytest.mark.parametrize(
        ("kind", "state"),
        [
            (EndKind.FAIL, RunState.FAILED),
            (EndKind.END_CANCELLED, RunState.CANCELLED),
            (EndKind.EXPIRE, RunState.EXPIRED),
        ],
    )
    async def test_each_final_kind_has_its_state_and_withdraws_what_is_open(
        self, store: Store, kind: EndKind, state: RunState
    ) -> None:
        claim = await start(store)
        await store.append(claim.fence, asking(1), lease=LEASE)
        run = await store.settle(claim.fence, End(kind, outcome=Outcome(error={"code": 1, "message": "m"}), reason="r"))
        assert (run.state, run.reason) == (state, "r")
        kinds = [(event.kind, event.body.get("state")) for event in await told(store, run.id)]
        assert kinds == [(EventKind.QUESTION, None), (EventKind.CLOSED, "withdrawn"), (EventKind.RESULT, None)]

    async def test_a_merged_run_names_the_run_to_go_on_with_and_is_no_rival(self, store: Store) -> None:
        other = await ready(store, scope="x")
        claim = await start(store, call_key="k")
        run = await store.settle(claim.fence, End(EndKind.END_CANCELLED, merged_into=other))
        assert run.merged_into == other
        assert [(event.kind, event.body) for event in await told(store, run.id)] == [
            (EventKind.MERGED, {"into": other})
        ]
        new = new_run(call_key="k")
        assert isinstance(await store.create(new, new_stream(new.id), known=(), claim=None), Created)

    async def test_a_suspended_run_waits_with_the_earliest_expiry_as_its_timer(
        self, store: Store, world: World
    ) -> None:
        claim = await start(store)
        batch = Batch(questions=[*asking(1, expires_in=50.0).questions, *asking(2, expires_in=30.0).questions])
        run = await store.settle(claim.fence, End(EndKind.SUSPEND, 0, frozenset({1, 2}), timer_in=40.0, batch=batch))
        assert (run.state, run.next_at) == (RunState.WAITING, world.clock.wall() + 30.0)
        assert [event.body for event in await told(store, run.id, EventKind.STATE)] == [{"state": "waiting"}]

    async def test_a_retry_timer_makes_a_run_wait_without_a_question(self, store: Store, world: World) -> None:
        claim = await start(store)
        run = await store.settle(claim.fence, End(EndKind.SUSPEND, timer_in=40.0))
        assert (run.state, run.next_at) == (RunState.WAITING, world.clock.wall() + 40.0)

    async def test_hazard_b3_no_wake_up_is_lost_between_asking_and_suspending(self, store: Store) -> None:
        claim = await start(store)
        await store.append(claim.fence, asking(1), lease=LEASE)
        await store.answer(claim.run.id, {1: accept()}, by=ANN, via="link")
        run = await store.settle(claim.fence, End(EndKind.SUSPEND, claim.run.wake_seq, frozenset({1})))
        assert run.state is RunState.READY

    async def test_a_question_that_was_not_asked_again_is_withdrawn(self, store: Store) -> None:
        run_id = await waiting(store, 1, 2)
        await store.answer(run_id, {1: accept()}, by=ANN, via="link")
        claim = await claim_one(store)
        assert claim is not None
        await ask(store, claim, 3)
        loaded = await store.load(run_id)
        assert loaded is not None
        states = [question.state for question in loaded.questions]
        assert states == [QuestionState.ANSWERED, QuestionState.WITHDRAWN, QuestionState.OPEN]

    async def test_a_run_that_gives_up_is_stuck_and_says_why(self, store: Store) -> None:
        claim = await start(store)
        run = await store.settle(claim.fence, End(EndKind.GIVE_UP, reason="replay mismatch"))
        assert (run.state, run.reason) == (RunState.STUCK, "replay mismatch")
        assert [event.body for event in await told(store, run.id)] == [{"state": "stuck", "reason": "replay mismatch"}]
        assert await claim_one(store) is None

    async def test_a_released_run_is_ready_at_once(self, store: Store) -> None:
        claim = await start(store)
        assert (await store.settle(claim.fence, End(EndKind.RELEASE))).state is RunState.READY
        again = await claim_one(store, "r2")
        assert again is not None
        assert again.takeover is False

    async def test_a_run_released_during_its_clean_up_is_cleaned_up_by_another(self, store: Store) -> None:
        run_id = await waiting(store)
        await store.steer(run_id, Action(ActionKind.CANCEL, "client"))
        claim = await claim_one(store)
        assert claim is not None
        assert (await store.settle(claim.fence, End(EndKind.RELEASE))).state is RunState.CANCELLING

    async def test_a_value_that_is_not_json_is_refused_before_anything_is_written(self, store: Store) -> None:
        claim = await start(store)
        with pytest.raises(TypeError):
            await store.append(claim.fence, Batch(events=[NewEvent(EventKind.NOTIFY, {"x": object()})]), lease=LEASE)
        assert await state_of(store, claim.run.id) == "running"

    async def test_a_callers_principal_is_kept_whole(self, store: Store) -> None:
        principal = Principal("i", "s", "c", ("a", "b"), person=True)
        run_id = await ready(store, principal=principal)
        loaded = await store.load(run_id)
        assert loaded is not None
        assert loaded.run.call.principal == principal
