"""Each alert fires when it should and stays silent when it should not: `promtool test rules` over series by hand."""

from pathlib import Path

import pytest

from tests.unit import burn_cases
from tests.unit.alert_case import HELD, Case, Key, T, complaints, healthy

DEAD = "1x60 _x400"
GROWING_LAG = {
    'headwater_consumer_lag_records{task="watch",partition="0"}': "0+50x400",
    f"headwater_consumer_lag_seconds{T}": "0+30x400",
}

CASES = [
    # The process ends after an hour; two minutes later somebody is called, and still is after half a day.
    Case(alert="AggregatorDown", after="61m", series=healthy(**{f"headwater_leader{T}": "1x60 0x400"}), says=None),
    Case(alert="AggregatorDown", after="64m", series=healthy(**{f"headwater_leader{T}": "1x60 0x400"}), says=""),
    Case(alert="AggregatorDown", after="2h", series=healthy(**{f"headwater_leader{T}": "1x60 0x400"}), says=""),
    Case(alert="AggregatorDown", after="70m", series=healthy(), says=None),
    # A standby that never led beside a leader is no reason.
    Case(
        alert="AggregatorDown",
        after="70m",
        series=healthy(**{'headwater_leader{task="watch",instance="standby"}': "0x400"}),
        says=None,
    ),
    # Nothing was ever scraped.
    Case(alert="AggregatorDown", after="10m", series={"up": "1x60"}, says="", labels={}),
    # Versions stop after an hour while updates arrive.
    Case(
        alert="ModelStale",
        after="72m",
        series=healthy(**{f"headwater_model_published_timestamp_seconds{T}": "1+60x60 3600x400"}),
        says="12m 0s",
    ),
    Case(
        alert="ModelStale",
        after="66m",
        series=healthy(**{f"headwater_model_published_timestamp_seconds{T}": "1+60x60 3600x400"}),
        says=None,
    ),
    # The same, but no update arrives: a quiet fleet is no fault; nor is a pause that an operator asked for.
    Case(
        alert="ModelStale",
        after="90m",
        series=healthy(
            **{
                f"headwater_model_published_timestamp_seconds{T}": "1+60x60 3600x400",
                f"headwater_updates_received_total{T}": "0+60x60 3600x400",
            }
        ),
        says=None,
    ),
    Case(
        alert="ModelStale",
        after="90m",
        series=healthy(
            **{
                f"headwater_model_published_timestamp_seconds{T}": "1+60x60 3600x400",
                f"headwater_paused{T}": "1x400",
            }
        ),
        says=None,
    ),
    # The process is gone, and every series with it.
    Case(
        alert="ModelStale",
        after="72m",
        series=dict.fromkeys(healthy(), DEAD)
        | {
            f"headwater_model_published_timestamp_seconds{T}": "1+60x60 _x400",
        },
        says="11m 59s",
    ),
    Case(
        alert="ChainRaceLost",
        after="32m",
        series=healthy(**{f"headwater_chain_lost_races_total{T}": "0x29 1x400"}),
        says="",
    ),
    Case(
        alert="ChainRaceLost",
        after="60m",
        series=healthy(**{f"headwater_chain_lost_races_total{T}": "0x29 1x400"}),
        says=None,
    ),
    Case(
        alert="ChainRaceLost",
        after="10m",
        series=healthy(**{'headwater_leader{task="watch",instance="b"}': "1x400"}),
        says="",
    ),
    Case(
        alert="LagGrowing",
        after="2h",
        series=healthy(**GROWING_LAG),
        says="1h 0m 0s",
    ),
    # A backlog that shrinks is being dealt with.
    Case(
        alert="LagGrowing",
        after="2h",
        series=healthy(
            **{
                'headwater_consumer_lag_records{task="watch",partition="0"}': "40000-50x400",
                f"headwater_consumer_lag_seconds{T}": "3600x400",
            }
        ),
        says=None,
    ),
    # While an operator holds the task, a backlog is what he asked for; once it goes on, the backlog must shrink.
    Case(
        alert="LagGrowing",
        after="2h",
        series=healthy(**GROWING_LAG, **{f"headwater_paused{T}": "1x400"}),
        says=None,
    ),
    Case(
        alert="LagGrowing",
        after="2h",
        series=healthy(**GROWING_LAG, **{f"headwater_paused{T}": "1x112 0x400"}),
        says=None,
    ),
    Case(
        alert="LagGrowing",
        after="2h",
        series=healthy(**GROWING_LAG, **{f"headwater_paused{T}": "1x100 0x400"}),
        says="1h 0m 0s",
    ),
    Case(
        alert="RetentionHeadroomLow",
        after="60m",
        series=healthy(
            **{
                f"headwater_retention_headroom_seconds{T}": "100000x400",
                f"headwater_retention_seconds{T}": "400000x400",
            }
        ),
        says="25%",
    ),
    Case(
        alert="RetentionHeadroomLow",
        after="60m",
        series=healthy(
            **{
                f"headwater_retention_headroom_seconds{T}": "300000x400",
                f"headwater_retention_seconds{T}": "400000x400",
            }
        ),
        says=None,
    ),
    Case(
        alert="UpdatesLostToRetention",
        after="5m",
        series=healthy(**{'headwater_void_offsets_total{task="watch",kind="lost"}': "0x2 7x100"}),
        says="",
    ),
    Case(
        alert="UpdatesLostToRetention",
        after="5m",
        series=healthy(
            **{
                'headwater_void_offsets_total{task="watch",kind="lost"}': "0x100",
                'headwater_void_offsets_total{task="watch",kind="control"}': "0+1x100",
                f"headwater_retention_headroom_seconds{T}": "1x400",
            }
        ),
        says=None,
    ),
    # Nothing is lost yet, but the log may delete what is needed at any moment.
    Case(
        alert="UpdatesLostToRetention",
        after="5m",
        series=healthy(**{f"headwater_retention_headroom_seconds{T}": "300-60x400"}),
        says="",
    ),
    Case(
        alert="UpdatesLostToRetention",
        after="4m",
        series=healthy(**{f"headwater_retention_headroom_seconds{T}": "300-60x400"}),
        says=None,
    ),
    Case(
        alert="KeyframeFailing",
        after="30m",
        series=healthy(**{f"headwater_keyframe_failures_total{T}": "0+3x400"}),
        says="",
    ),
    Case(
        alert="KeyframeFailing",
        after="30m",
        series=healthy(**{f"headwater_keyframe_failures_total{T}": "0x12 1x400"}),
        says=None,
    ),
    Case(
        alert="RejectRatioHigh",
        after="30m",
        series=healthy(**{'headwater_rejects_total{task="watch",code="stale"}': "0+20x400"}),
        says="25%",
    ),
    # Duplicates are resends after a lost answer, however many.
    Case(alert="RejectRatioHigh", after="30m", series=healthy(), says=None),
    Case(
        alert="StragglerShareHigh",
        after="60m",
        series=healthy(**{f"headwater_straggler_share{T}": "0.3x400"}),
        says="30%",
    ),
    Case(
        alert="StragglerShareHigh",
        after="60m",
        series=healthy(**{f"headwater_straggler_share{T}": "0.05x20 0.3x5 0.05x400"}),
        says=None,
    ),
    Case(
        alert="SlowDevicesForgotten",
        after="60m",
        series=healthy(**{'headwater_silent_share{task="watch",speed="slowest_tenth"}': "0.8x400"}),
        says="",
    ),
    Case(
        alert="SlowDevicesForgotten",
        after="60m",
        series=healthy(
            **{
                'headwater_weight_share{task="watch",speed="slowest_tenth"}': "0.02x400",
                'headwater_data_share{task="watch",speed="slowest_tenth"}': "0.1x400",
            }
        ),
        says="",
    ),
    # Fast devices may come and go; slow ones that are rarely heard but count in full are what fairness is for.
    Case(
        alert="SlowDevicesForgotten",
        after="60m",
        series=healthy(
            **{
                'headwater_silent_share{task="watch",speed="fastest_tenth"}': "1x400",
                'headwater_silent_share{task="watch",speed="slowest_tenth"}': "0.1x400",
                'headwater_participation_share{task="watch",speed="slowest_tenth"}': "0.01x400",
                'headwater_weight_share{task="watch",speed="slowest_tenth"}': "0.09x400",
                'headwater_data_share{task="watch",speed="slowest_tenth"}': "0.1x400",
            }
        ),
        says=None,
    ),
    Case(
        alert="EventLoopBlocked",
        after="30m",
        series=healthy(
            **{
                'headwater_event_loop_lag_seconds_bucket{task="watch",le="0.25"}': "0+0x400",
                'headwater_event_loop_lag_seconds_bucket{task="watch",le="0.5"}': "0+100x400",
                'headwater_event_loop_lag_seconds_bucket{task="watch",le="+Inf"}': "0+100x400",
            }
        ),
        says="497.5ms",
    ),
    Case(
        alert="EventLoopBlocked",
        after="30m",
        series=healthy(
            **{
                'headwater_event_loop_lag_seconds_bucket{task="watch",le="0.015"}': "0+100x400",
                'headwater_event_loop_lag_seconds_bucket{task="watch",le="+Inf"}': "0+100x400",
            }
        ),
        says=None,
    ),
    Case(
        alert="ReconcileGap", after="5m", series=healthy(**{f"headwater_reconcile_gap_updates{T}": "-2x60"}), says="2"
    ),
    Case(
        alert="ReconcileGap", after="5m", series=healthy(**{f"headwater_reconcile_gap_updates{T}": "0x60"}), says=None
    ),
    Case(
        alert="BrokerUnderMinISR",
        after="5m",
        series={'kafka_server_replicamanager_underminisrpartitioncount{job="kafka",instance="a"}': "3x60"},
        says="3",
        labels={"job": "kafka"},
    ),
    Case(
        alert="BrokerUnderMinISR",
        after="5m",
        series={'kafka_server_replicamanager_underminisrpartitioncount{job="kafka",instance="a"}': "0x60"},
        says=None,
        labels={"job": "kafka"},
    ),
    Case(
        alert="OutboxGrowing",
        after="60m",
        series=healthy(
            **{
                'headwater_outbox_age_seconds_bucket{task="watch",le="300"}': "0+50x400",
                'headwater_outbox_age_seconds_bucket{task="watch",le="3600"}': "0+100x400",
                'headwater_outbox_age_seconds_bucket{task="watch",le="+Inf"}': "0+100x400",
            }
        ),
        says="49m 0s",
    ),
    Case(
        alert="OutboxGrowing",
        after="60m",
        series=healthy(
            **{
                'headwater_outbox_age_seconds_bucket{task="watch",le="10"}': "0+100x400",
                'headwater_outbox_age_seconds_bucket{task="watch",le="+Inf"}': "0+100x400",
            }
        ),
        says=None,
    ),
]


IN_TURN = [[case for case in CASES if case.alert == name] for name in sorted({case.alert for case in CASES})]
IN_TURN += [[case] for case in burn_cases.CASES]


@pytest.mark.parametrize("cases", IN_TURN, ids=lambda cases: f"{cases[0].alert}-{cases[0].after}")
def test_the_alert_fires_when_it_should_and_only_then(cases: list[Case], tmp_path: Path) -> None:
    assert complaints(cases, tmp_path) == ""


def test_every_alert_of_the_rule_file_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    assert len(HELD) == len(set(HELD)) == 14 + 4 * 4
    fires: set[Key] = {key for case in [*CASES, *burn_cases.CASES] for key in case.values()}
    silent: set[Key] = {key for case in [*CASES, *burn_cases.CASES] for key in case.silent()}
    assert fires == set(HELD)
    assert silent == set(HELD)


def test_a_case_that_expects_the_wrong_thing_is_found_out(tmp_path: Path) -> None:
    silent = next(case for case in CASES if case.says is None)
    assert complaints([Case(alert=silent.alert, after=silent.after, series=silent.series, says="")], tmp_path)
