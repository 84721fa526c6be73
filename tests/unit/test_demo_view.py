import io

import pytest
from rich.console import Console

from headwater.demo.dashboard import dashboard
from headwater.demo.text_plot import bar, clock, curve, human_bytes, staleness_buckets
from headwater.demo.view import Dashboard, PlainLines, open_view, plain_line
from tests.unit.demo_run import a_run, an_evaluation


def drawn(width: int, height: int, **changes: object) -> str:
    console = Console(width=width, height=height, file=io.StringIO(), record=True, force_terminal=True)
    console.print(dashboard(a_run(**changes), console.size), height=height)
    return console.export_text()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 36), (200, 60)])
def test_the_dashboard_fills_the_terminal_and_nothing_more(width: int, height: int) -> None:
    lines = drawn(width, height).splitlines()

    assert len(lines) == height
    assert max(len(line) for line in lines) == width


def test_the_dashboard_shows_what_a_watcher_wants_to_know() -> None:
    text = drawn(120, 36)

    for part in (
        "Headwater 1:30",
        "version 360",
        "updates 1800 (20.0/s)",
        "Held-out accuracy 94.0%, target 93% reached: 1:20",
        "Staleness in versions: median 3, max 40",
        "250× less sent than float32: 1.4 MB, not 342 MB",
        "watch-10-right 10.0 s",
        "aggregator running      302 again 1×",
        "kill -9 302",
        "aggregator is back as pid 302",
    ):
        assert part in text


def test_the_slowest_devices_stand_first() -> None:
    text = drawn(120, 36)

    assert text.index("watch-10-right") < text.index("watch-02-left") < text.index("watch-01-left")


def test_while_the_aggregator_is_down_there_is_no_invitation_to_kill_it() -> None:
    text = drawn(120, 36, aggregator_pid=None)

    assert "kill -9" not in text
    assert "The aggregator is being started" in text


def test_a_run_that_has_not_begun_can_be_drawn() -> None:
    text = drawn(100, 30, evaluations=(), staleness={}, devices=(), updates_accepted=0, uplink_bytes=0)

    assert "none yet" in text


def test_without_a_terminal_there_are_plain_lines() -> None:
    assert isinstance(open_view(Console(file=io.StringIO())), PlainLines)
    assert isinstance(
        open_view(Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})), PlainLines
    )


def test_plain_lines_come_every_five_seconds_and_tell_each_happening_once() -> None:
    file = io.StringIO()
    view = PlainLines(file)

    with view:
        for elapsed_s in (0.0, 1.0, 4.9, 5.0, 6.0):
            view.show(a_run(elapsed_s=elapsed_s))

    lines = file.getvalue().splitlines()
    assert sum("version 360" in line for line in lines) == 2
    assert sum("was killed by signal 9" in line for line in lines) == 1
    assert sum("kill -9 302" in line for line in lines) == 1


def test_plain_lines_invite_again_when_the_aggregator_has_a_new_pid() -> None:
    file = io.StringIO()
    view = PlainLines(file)

    for pid in (302, None, 977):
        view.show(a_run(aggregator_pid=pid))

    assert file.getvalue().count("Try it") == 2
    assert "kill -9 977" in file.getvalue()


def test_a_plain_line_says_how_the_run_stands() -> None:
    assert plain_line(a_run()) == (
        "[1:30] version 360 · held-out accuracy 94.0% (target 93%) · 1800 updates, 20.0/s, 2 refused"
        " · staleness median 3, max 40 · sent 1.4 MB, 250× below float32 · 1 of 3 devices offline"
    )


def test_the_dashboard_gives_the_terminal_back_and_leaves_its_last_picture() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, height=30, legacy_windows=False)

    with Dashboard(console) as view:
        view.show(a_run())

    leave_alternate_screen = "\x1b[?1049l"
    assert leave_alternate_screen in file.getvalue()
    assert "version" in file.getvalue().split(leave_alternate_screen)[-1]


def test_the_target_counts_only_when_three_evaluations_in_a_row_hold_it() -> None:
    lucky = tuple(an_evaluation(at_s, accuracy) for at_s, accuracy in ((10, 0.94), (20, 0.94), (30, 0.9), (40, 0.95)))
    held = (*lucky, an_evaluation(50, 0.93), an_evaluation(60, 0.96), an_evaluation(70, 0.5))

    assert a_run(evaluations=lucky).seconds_to_target is None
    assert a_run(evaluations=held).seconds_to_target == 60


def test_the_median_staleness_counts_updates_not_values() -> None:
    assert a_run(staleness={0: 1, 5: 1, 90: 3}).staleness_p50 == 90
    assert a_run(staleness={}).staleness_p50 == 0


def test_a_curve_starts_low_on_the_left_and_ends_high_on_the_right() -> None:
    rows = curve([(0, 0.0), (10, 1.0)], width=10, height=4, x_max=10)

    blank = "\u2800"
    assert [len(row) for row in rows] == [10, 10, 10, 10]
    assert rows[0][-1] != blank
    assert rows[0][0] == blank
    assert rows[3][0] != blank
    assert rows[3][-1] == blank


def test_a_curve_without_points_is_blank() -> None:
    assert curve([], width=3, height=2, x_max=10) == ["\u2800" * 3] * 2


def test_small_helpers_say_numbers_as_people_do() -> None:
    assert bar(0.75, 4) == "███ "
    assert clock(599.9) == "9:59"
    assert human_bytes(999) == "999 B"
    assert human_bytes(43_500) == "43.5 kB"
    assert human_bytes(2e18) == "2000000 TB"
    assert staleness_buckets({}) == [("0", 0)]


def test_lines_begin_anew_with_the_first_training() -> None:
    file = io.StringIO()
    view = PlainLines(file)
    for begun, elapsed_s in ((False, 0.0), (False, 12.0), (True, 0.5), (True, 1.0), (True, 5.6)):
        view.show(a_run(begun=begun, elapsed_s=elapsed_s))

    lines = [line for line in file.getvalue().splitlines() if "starting;" in line or "version" in line]
    assert [line.split()[0] for line in lines] == ["[0:00]", "[0:12]", "[0:00]", "[0:05]"]
    assert ["starting;" in line for line in lines] == [True, True, False, False]
