from milepost.engine.progress import ProgressScale


def test_progress_rises_over_the_declared_stages() -> None:
    scale = ProgressScale(["search", "book"], 0.0)
    shown = [
        scale.begin("search"),
        scale.report("search", 5, 10),
        scale.end("search"),
        scale.begin("book"),
        scale.end("book"),
    ]
    assert shown == sorted(shown)
    assert shown[0] > 0
    assert shown[-1] == 2.0 == scale.total


def test_hazard_d1_progress_never_falls_below_what_was_shown() -> None:
    scale = ProgressScale(["search", "book"], 1.5)
    assert scale.report("search", 9, 10) is None
    assert scale.begin("search") > 1.5


def test_without_stages_the_authors_numbers_pass_through() -> None:
    scale = ProgressScale([], 3.0)
    assert scale.total is None
    assert scale.report(None, 4, 10) == 4
    assert scale.report(None, 4, 10) is None


def test_outside_of_declared_stages_nothing_is_shown() -> None:
    scale = ProgressScale(["search"], 0.0)
    assert scale.report(None, 1, 2) is None
    assert scale.report("other", 1, 2) is None


def test_each_mark_of_a_stage_is_seen_declared_or_not_and_in_a_loop() -> None:
    scale = ProgressScale(["search"], 0.0)
    marks = [
        scale.begin("search"),
        scale.end("search"),
        scale.begin("search"),
        scale.end("other"),
        scale.begin("other"),
    ]
    assert marks == sorted(set(marks))
    assert scale.shown < 1.01


def test_without_a_total_progress_creeps_towards_the_end_of_the_stage() -> None:
    scale = ProgressScale(["search"], 0.0)
    first, second = scale.report("search", 1, None), scale.report("search", 100, None)
    assert first is not None
    assert second is not None
    assert first < second < 1.0


def test_many_marks_do_not_run_past_the_end() -> None:
    scale = ProgressScale(["search", "book"], 0.0)
    marks = [mark for _ in range(2_000) for mark in (scale.begin("search"), scale.end("search"))]
    assert marks == sorted(set(marks))
    assert marks[-1] < 2.05


def test_without_an_end_each_mark_is_the_same_small_step() -> None:
    scale = ProgressScale([], 3.0)
    assert [scale.begin("search"), scale.end("search")] == [3.001, 3.002]
