"""Conformance: what comes from outside an attempt. Answers, actions, time, lists, watchers."""

from __future__ import annotations

import asyncio
import itertools
import threading
from dataclasses import replace

import pytest

from milepost.core.attempts import Batch, End, EndKind
from milepost.core.outside import Action, ActionKind, Find, Retention, Verdict
from milepost.core.records import EventKind, QuestionState, Reply
from milepost.core.states import RunState
from milepost.seams import Store
from store.making import (
    ANN,
    BOB,
    DONE,
    LEASE,
    Notices,
    accept,
    asking,
    claim_one,
    claimant,
    entry,
    first_stream,
    new_stream,
    ready,
    start,
    state_of,
    told,
    waiting,
)
from store.worlds import SqliteWorld as World


class AnswerContract:
    async def test_an_answer_is_stored_and_wakes_the_run(self, store: Store, world: World) -> None:
        run_id = await waiting(store)
        assert await store.answer(run_id, {1: accept()}, by=ANN, via="mrtr") == {1: Verdict.ACCEPTED}
        loaded = await store.load(run_id)
        assert loaded is not None
        question = loaded.questions[0]
        assert (question.state, question.reply, question.by, question.via, question.answered_at) == (
            QuestionState.ANSWERED, accept(), ANN, "mrtr", world.clock.wall(),
        )  # fmt: skip
        assert (loaded.run.state, loaded.run.wake_seq, loaded.run.next_at) == (RunState.READY, 1, None)
        closed = await told(store, run_id, EventKind.CLOSED)
        assert [event.body for event in closed] == [{"question": 1, "state": "answered", "via": "mrtr"}]

    async def test_a_clients_error_is_an_answer(self, store: Store) -> None:
        run_id = await waiting(store)
        reply = Reply(error={"code": -32603, "message": "no"})
        assert await store.answer(run_id, {1: reply}, by=ANN, via="x") == {1: Verdict.ACCEPTED}
        loaded = await store.load(run_id)
        assert loaded is not None
        assert loaded.questions[0].reply == reply

    async def test_the_same_answer_again_is_acknowledged_again(self, store: Store) -> None:
        run_id = await waiting(store)
        await store.answer(run_id, {1: accept()}, by=ANN, via="mrtr")
        refreshed = replace(ANN, scopes=("other",))
        assert await store.answer(run_id, {1: accept()}, by=refreshed, via="link") == {1: Verdict.REPEATED}
        assert await store.answer(run_id, {1: accept("tuesday")}, by=ANN, via="link") == {1: Verdict.CLOSED}
        assert await store.answer(run_id, {1: accept()}, by=BOB, via="link") == {1: Verdict.CLOSED}
        assert len(await told(store, run_id, EventKind.CLOSED)) == 1

    async def test_true_and_one_are_different_answers(self, store: Store) -> None:
        run_id = await waiting(store)
        await store.answer(run_id, {1: Reply(result={"content": {"n": 1}})}, by=ANN, via="x")
        again = await store.answer(run_id, {1: Reply(result={"content": {"n": True}})}, by=ANN, via="x")
        assert again == {1: Verdict.CLOSED}

    async def test_several_answers_are_one_wake(self, store: Store) -> None:
        run_id = await waiting(store, 1, 2, 3)
        verdicts = await store.answer(run_id, {1: accept(), 3: accept(), 9: accept()}, by=ANN, via="mrtr")
        assert verdicts == {1: Verdict.ACCEPTED, 3: Verdict.ACCEPTED, 9: Verdict.UNKNOWN}
        loaded = await store.load(run_id)
        assert loaded is not None
        assert loaded.run.wake_seq == 1

    async def test_hazard_d6_an_answer_to_one_of_several_questions_makes_the_run_ready(self, store: Store) -> None:
        run_id = await waiting(store, 1, 2)
        await store.answer(run_id, {2: accept()}, by=ANN, via="mrtr")
        assert await state_of(store, run_id) == "ready"
        assert (await store.answer(run_id, {1: accept()}, by=ANN, via="mrtr")) == {1: Verdict.ACCEPTED}

    async def test_hazard_c4_a_late_answer_is_closed_even_if_no_sweep_came_by(self, store: Store, world: World) -> None:
        run_id = await waiting(store, expires_in=60.0)
        world.clock.advance(60)
        assert await store.answer(run_id, {1: accept()}, by=ANN, via="x") == {1: Verdict.CLOSED}

    async def test_an_unknown_run_has_unknown_questions(self, store: Store) -> None:
        assert await store.answer("run-0", {1: accept()}, by=ANN, via="x") == {1: Verdict.UNKNOWN}

    @pytest.mark.parametrize("end", [EndKind.COMPLETE, EndKind.GIVE_UP])
    async def test_a_run_that_takes_no_answers_closes_them(self, store: Store, end: EndKind) -> None:
        claim = await start(store)
        await store.append(claim.fence, asking(1), lease=LEASE)
        await store.settle(claim.fence, End(end))
        assert await store.answer(claim.run.id, {1: accept()}, by=ANN, via="x") == {1: Verdict.CLOSED}

    async def test_hazard_b3_suspend_against_two_answers_and_a_cancel(self, store: Store, world: World) -> None:
        """Whatever the order: no wake-up is lost, nobody is told a thing that isn't so."""
        other = await world.open()
        for order in itertools.permutations(range(4)):
            claim = await start(store)
            run_id = claim.run.id
            await store.append(claim.fence, asking(1, 2), lease=LEASE)
            acts = [
                store.settle(claim.fence, End(EndKind.SUSPEND, 0, frozenset({1, 2}))),
                store.answer(run_id, {1: accept()}, by=ANN, via="a"),
                other.answer(run_id, {2: accept()}, by=ANN, via="b"),
                other.steer(run_id, Action(ActionKind.CANCEL, "client")),
            ]
            tasks = [asyncio.ensure_future(acts[n]) for n in order]
            await asyncio.gather(*tasks)
            verdicts = {**tasks[order.index(1)].result(), **tasks[order.index(2)].result()}
            loaded = await store.load(run_id)
            assert loaded is not None
            assert loaded.run.state is RunState.CANCELLING
            for question in loaded.questions:
                accepted = verdicts[question.id] is Verdict.ACCEPTED
                assert (question.state is QuestionState.ANSWERED) == accepted
            assert await store.claim(claimant(), limit=5, takeovers=0)

    async def test_hazard_b3_one_question_has_one_winner(self, store: Store, world: World) -> None:
        other = await world.open()
        for _ in range(20):
            run_id = await waiting(store)
            both = await asyncio.gather(
                store.answer(run_id, {1: accept("a")}, by=ANN, via="a"),
                other.answer(run_id, {1: accept("b")}, by=BOB, via="b"),
            )
            assert sorted(found[1] for found in both) == [Verdict.ACCEPTED, Verdict.CLOSED]
            assert await claim_one(store) is not None


class SteerContract:
    async def test_a_waiting_run_is_cancelled_with_one_last_attempt(self, store: Store) -> None:
        run_id = await waiting(store)
        run = await store.steer(run_id, Action(ActionKind.CANCEL, "operator"))
        assert run is not None
        assert (run.state, run.cancel, run.next_at) == (RunState.CANCELLING, "operator", None)
        assert (await told(store, run_id))[-1].body == {"state": "cancelling", "reason": "operator"}
        claim = await claim_one(store)
        assert claim is not None
        assert (claim.run.cancel, claim.run.state) == ("operator", RunState.RUNNING)

    async def test_a_running_run_is_told_of_a_cancel_and_cancelling_when_it_suspends(self, store: Store) -> None:
        claim = await start(store)
        await store.steer(claim.run.id, Action(ActionKind.CANCEL, "client"))
        assert await state_of(store, claim.run.id) == "running"
        run = await store.settle(claim.fence, End(EndKind.SUSPEND, 0))
        assert run.state is RunState.CANCELLING

    async def test_a_second_cancel_changes_nothing(self, store: Store) -> None:
        run_id = await waiting(store)
        await store.steer(run_id, Action(ActionKind.CANCEL, "operator"))
        before = await told(store, run_id)
        run = await store.steer(run_id, Action(ActionKind.CANCEL, "client"))
        assert run is not None
        assert run.cancel == "operator"
        assert await told(store, run_id) == before

    async def test_a_reason_that_is_no_text_harms_nothing(self, store: Store) -> None:
        run_id = await waiting(store)
        run = await store.steer(run_id, Action(ActionKind.CANCEL, "half \ud83d"))
        assert run is not None
        assert run.cancel == "half ?"

    async def test_a_run_with_a_live_stream_is_not_parked(self, store: Store) -> None:
        run_id = await waiting(store)
        run = await store.steer(run_id, Action(ActionKind.PARK))
        assert run is not None
        assert run.state is RunState.WAITING

    async def test_a_run_is_parked_when_its_last_stream_is_closed_and_taken_up_again(
        self, store: Store, world: World
    ) -> None:
        run_id = await waiting(store)
        await _close_streams(store, run_id)
        run = await store.steer(run_id, Action(ActionKind.PARK, park_for=60.0))
        assert run is not None
        assert (run.state, run.next_at) == (RunState.PARKED, world.clock.wall() + 60.0)
        assert await claim_one(store) is None
        run = await store.steer(run_id, Action(ActionKind.ATTACH))
        assert run is not None
        assert (run.state, run.next_at) == (RunState.READY, None)

    async def test_an_answer_takes_up_a_parked_run(self, store: Store) -> None:
        run_id = await _parked(store)
        await store.answer(run_id, {1: accept()}, by=ANN, via="link")
        assert await state_of(store, run_id) == "ready"

    async def test_a_running_run_parks_when_it_suspends(self, store: Store, world: World) -> None:
        claim = await start(store)
        await _close_streams(store, claim.run.id)
        run = await store.steer(claim.run.id, Action(ActionKind.PARK, park_for=60.0))
        assert run is not None
        assert (run.state, run.park_asked) == (RunState.RUNNING, True)
        run = await store.settle(claim.fence, End(EndKind.SUSPEND, 0))
        assert (run.state, run.park_asked, run.next_at) == (RunState.PARKED, False, world.clock.wall() + 60.0)

    async def test_a_client_that_came_back_meanwhile_keeps_its_run_from_parking(self, store: Store) -> None:
        attached, streamed = await start(store), await start(store)
        for claim in (attached, streamed):
            await _close_streams(store, claim.run.id)
            await store.steer(claim.run.id, Action(ActionKind.PARK))
        await store.steer(attached.run.id, Action(ActionKind.ATTACH))
        await store.open_stream(new_stream(streamed.run.id))
        for claim in (attached, streamed):
            run = await store.settle(claim.fence, End(EndKind.SUSPEND, 0, park=True))
            assert (run.state, run.park_asked) == (RunState.READY, False)

    async def test_an_attempt_may_ask_to_be_parked(self, store: Store) -> None:
        claim = await start(store)
        run = await store.settle(claim.fence, End(EndKind.SUSPEND, 0, park=True))
        assert run.state is RunState.PARKED
        assert run.next_at is not None

    async def test_a_stuck_run_is_retried_with_a_new_crash_count(self, store: Store) -> None:
        claim = await start(store)
        await store.settle(claim.fence, End(EndKind.GIVE_UP, reason="why"))
        run = await store.steer(claim.run.id, Action(ActionKind.RETRY, accept_drift=True))
        assert run is not None
        assert (run.state, run.accept_drift, run.crashes, run.reason) == (RunState.READY, True, 0, None)

    async def test_an_action_that_does_not_fit_changes_nothing(self, store: Store) -> None:
        claim = await start(store)
        await store.settle(claim.fence, DONE)
        for kind in ActionKind:
            run = await store.steer(claim.run.id, Action(kind, question=1))
            assert run is not None
            assert run.state is RunState.COMPLETED
        assert len(await told(store, claim.run.id)) == 1
        assert await store.steer("run-0", Action(ActionKind.CANCEL)) is None

    async def test_a_question_is_asked_again_with_a_note(self, store: Store) -> None:
        run_id = await waiting(store)
        await store.steer(run_id, Action(ActionKind.REASK, question=1, note="not a date"))
        await store.steer(run_id, Action(ActionKind.REASK, question=2, note="no such question"))
        asked = await told(store, run_id, EventKind.QUESTION)
        assert [event.body for event in asked] == [{"question": 1}, {"question": 1, "note": "not a date"}]


class SweepContract:
    async def test_an_expired_question_is_closed_and_wakes_its_run(self, store: Store, world: World) -> None:
        run_id = await waiting(store, expires_in=60.0)
        swept = await store.sweep(limit=100)
        assert (swept.runs, swept.next_in) == ((), pytest.approx(60.0))
        world.clock.advance(60)
        swept = await store.sweep(limit=100)
        assert (swept.runs, swept.next_in) == ((run_id,), None)
        loaded = await store.load(run_id)
        assert loaded is not None
        assert (loaded.run.state, loaded.run.wake_seq) == (RunState.READY, 1)
        assert loaded.questions[0].state is QuestionState.EXPIRED
        closed = await told(store, run_id, EventKind.CLOSED)
        assert [event.body for event in closed] == [{"question": 1, "state": "expired"}]

    async def test_a_question_of_a_running_run_expires_too(self, store: Store, world: World) -> None:
        claim = await start(store)
        await store.append(claim.fence, asking(1, expires_in=5.0), lease=LEASE)
        world.clock.advance(5)
        await store.sweep(limit=100)
        told_of = await store.append(claim.fence, Batch(), lease=LEASE)
        assert told_of.wake_seq == 1
        assert await state_of(store, claim.run.id) == "running"

    async def test_a_retry_timer_makes_its_run_ready(self, store: Store, world: World) -> None:
        claim = await start(store)
        await store.settle(claim.fence, End(EndKind.SUSPEND, timer_in=3.0))
        world.clock.advance(3)
        assert (await store.sweep(limit=100)).runs == (claim.run.id,)
        assert await claim_one(store) is not None

    async def test_a_run_that_was_parked_for_too_long_is_cleaned_up(self, store: Store, world: World) -> None:
        run_id = await _parked(store)
        world.clock.advance(61)
        await store.sweep(limit=100)
        loaded = await store.load(run_id)
        assert loaded is not None
        assert (loaded.run.state, loaded.run.cancel) == (RunState.CANCELLING, "expired: parked for too long")

    async def test_a_sweep_is_bounded_and_says_that_there_is_more(self, store: Store, world: World) -> None:
        for _ in range(5):
            await waiting(store, expires_in=1.0)
        world.clock.advance(2)
        rounds = [await store.sweep(limit=2) for _ in range(3)]
        assert [len(swept.runs) for swept in rounds] == [2, 2, 1]
        assert [swept.more for swept in rounds] == [True, True, False]

    async def test_final_runs_are_deleted_when_they_are_old(self, world: World) -> None:
        store = await world.open(retention=Retention(runs=100.0))
        claim = await start(store)
        stream = await store.open_stream(new_stream(claim.run.id))
        await store.append(claim.fence, Batch([entry(1)], asking(1).questions), lease=LEASE)
        await store.settle(claim.fence, DONE)
        kept = await waiting(store)
        world.clock.advance(101)
        await store.sweep(limit=100)
        assert await store.load(claim.run.id) is None
        assert await store.events(claim.run.id, after=0) == []
        assert await store.stream(stream.id) is None
        assert await store.load(kept) is not None

    async def test_ten_thousand_waiting_runs_cost_a_claim_nothing(self, store: Store) -> None:
        """By the plan, not by the watch: a claim looks only at what is due."""
        for _ in range(30):
            await waiting(store)
        due = await ready(store)
        claims = await store.claim(claimant(), limit=50, takeovers=8)
        assert [claim.run.id for claim in claims] == [due]


class ListContract:
    async def test_runs_are_listed_newest_first_by_state_tool_owner_and_page(self, store: Store) -> None:
        first = await waiting(store)
        second = await ready(store, tool="other", principal=BOB)
        third = await ready(store)

        async def found(**fields: object) -> list[str]:
            return [run.id for run in await store.find(Find(**fields))]  # type: ignore[arg-type]

        assert await found() == [third, second, first]
        assert await found(states=[RunState.READY]) == [third, second]
        assert await found(tool="other") == [second]
        assert await found(owner=replace(ANN, scopes=())) == [third, first]
        assert await found(older_than=third, limit=1) == [second]
        assert await found(states=[]) == []


class WatchContract:
    async def test_a_commit_of_this_process_names_the_run(self, store: Store) -> None:
        notices = Notices(store)
        run_id = await ready(store)
        assert set(await notices.next() or ()) == {run_id}
        notices.stop()
        notices.stop()

    async def test_a_commit_of_another_process_is_noticed(self, store: Store, world: World) -> None:
        other = await world.open()
        notices = Notices(other)
        run_id = await ready(store)
        changed = await notices.next()
        assert changed is None or set(changed) == {run_id}, "a store that can't say which says that some did"

    async def test_whoever_has_heard_of_one_change_hears_of_the_next(self, store: Store, world: World) -> None:
        notices = Notices(await world.open())
        for _ in range(3):
            run_id = await ready(store)
            while (changed := await notices.next()) is not None and run_id not in changed:
                pass  # an earlier one, told again

    async def test_a_heartbeat_is_no_change(self, store: Store, world: World) -> None:
        other = await world.open()
        notices = Notices(other)
        await asyncio.to_thread(store.extend, "r1", [], lease=LEASE)
        run_id = await ready(other)
        assert set(await notices.next() or ()) == {run_id}

    async def test_a_watch_that_ended_hears_nothing(self, store: Store) -> None:
        notices, other = Notices(store), Notices(store)
        notices.stop()
        await ready(store)
        await other.next()
        assert notices.seen == []


class LifeContract:
    async def test_replicas_are_known_with_what_they_may_run(self, store: Store, world: World) -> None:
        other = await world.open()
        await other.join("r2", release="blue", accepts=[("rebook", 2), ("book", 1)])
        known = {replica.id: replica for replica in await store.replicas()}
        assert set(known) == {"r1", "r2"}
        assert known["r2"].release == "blue"
        assert known["r2"].accepts == {("rebook", 2), ("book", 1)}
        assert known["r2"].alive
        world.clock.advance(60)
        assert [replica.alive for replica in await store.replicas() if replica.id == "r2"] == [False]
        await other.leave("r2")
        assert [replica.id for replica in await store.replicas()] == ["r1"]

    async def test_secrets_are_made_once_and_shared(self, store: Store, world: World) -> None:
        other = await world.open()
        assert store.secret("a") == other.secret("a")
        assert store.secret("a") != store.secret("b")
        assert len(store.secret("b")) == 32

    async def test_an_extend_is_safe_from_any_thread(self, store: Store) -> None:
        claims = [await start(store) for _ in range(4)]
        held: list[str] = []
        threads = [
            threading.Thread(target=lambda c=claim: held.extend(store.extend("r1", [c.fence], lease=LEASE)))  # type: ignore[misc]
            for claim in claims
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join, 10)
        assert sorted(held) == sorted(claim.fence.attempt_id for claim in claims)

    async def test_a_closed_store_keeps_what_it_accepted(self, world: World) -> None:
        store = await world.open()
        writes = [asyncio.ensure_future(ready(store)) for _ in range(20)]
        await asyncio.sleep(0)
        await store.aclose()
        await store.aclose()
        ids = await asyncio.gather(*writes)
        again = await world.open()
        assert {run.id for run in await again.find(Find())} == set(ids)

    async def test_a_store_is_healthy_while_it_can_write(self, store: Store) -> None:
        assert store.healthy() is None


async def _close_streams(store: Store, run_id: str) -> None:
    await store.close_stream(first_stream(run_id), delivery=None)


async def _parked(store: Store) -> str:
    """A run that was parked for 60 seconds while it waited; its id."""
    run_id = await waiting(store)
    await _close_streams(store, run_id)
    await store.steer(run_id, Action(ActionKind.PARK, park_for=60.0))
    return run_id
