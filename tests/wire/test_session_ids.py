from __future__ import annotations

from milepost.wire.session_ids import SessionIds


def test_an_id_is_recognised_by_every_replica_with_the_key_and_by_no_other() -> None:
    one, other = SessionIds(b"k" * 32), SessionIds(b"x" * 32)
    session_id = one.new()
    assert SessionIds(b"k" * 32).genuine(session_id)
    assert not other.genuine(session_id)


def test_ids_are_visible_ascii_and_all_different() -> None:
    made = {SessionIds(b"k" * 32).new() for _ in range(100)}
    assert len(made) == 100
    assert all(0x21 <= ord(letter) <= 0x7E for one in made for letter in one)


def test_garbage_is_not_genuine() -> None:
    ids = SessionIds(b"k" * 32)
    genuine = ids.new()
    for garbage in ("", "x", "é" * 34, genuine[:-1], genuine + "A", genuine.swapcase(), "A" * 34):
        assert not ids.genuine(garbage)


def test_a_reference_is_stable_and_shows_nothing_of_the_id() -> None:
    ids = SessionIds(b"k" * 32)
    session_id = ids.new()
    assert ids.reference(session_id) == ids.reference(session_id)
    assert ids.reference(session_id) not in session_id
