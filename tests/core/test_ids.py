from milepost.core import ids


def test_run_ids_sort_by_age_and_match_their_pattern() -> None:
    older, newer = ids.run_id(1000.0, b"\xff" * 10), ids.run_id(1000.5, b"\0" * 10)
    assert older < newer
    assert ids.RUN_ID.match(older)


def test_an_event_id_names_its_stream_and_number() -> None:
    stream = ids.stream_id(bytes(range(12)))
    assert ids.parse_event_id(ids.event_id(stream, 7)) == (stream, 7)


def test_what_is_no_event_id_is_refused() -> None:
    stream = ids.stream_id(bytes(12))
    for text in (
        "",
        "x",
        f"{stream}.",
        f"{stream}.-1",
        f"{stream}.٣",
        "short.1",
        f"{stream}.{'9' * 10}",
        f"{stream}x.1",
    ):
        assert ids.parse_event_id(text) is None


def test_a_trace_id_has_32_hex_digits() -> None:
    assert ids.trace_id(bytes(range(1, 17))) == "0102030405060708090a0b0c0d0e0f10"


def test_a_call_id_has_16_to_128_plain_characters() -> None:
    for text in ("a" * 16, "A.b_c-1" * 18, "0" * 128):
        assert ids.CALL_ID.match(text)
    for text in ("", "a" * 15, "a" * 129, "a" * 20 + "\n", "ä" * 20, "a b" * 10, "a/b" * 10):
        assert ids.CALL_ID.match(text) is None
