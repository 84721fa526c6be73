import json
import sys
from pathlib import Path

import pytest

from broker_topics.errors import ToolMissingError
from headwater.demo.report import closing_text, summary, write_report, write_roles
from tests.unit.demo_run import a_run, an_evaluation

PNG = b"\x89PNG\r\n\x1a\n"


def test_the_report_is_a_summary_and_five_pictures(tmp_path: Path) -> None:
    written = write_report(a_run(), tmp_path / "report")

    assert sorted(path.name for path in written) == [
        "accuracy_over_bytes.png",
        "accuracy_over_time.png",
        "participation.png",
        "staleness.png",
        "summary.json",
        "timeline.png",
    ]
    for path in written:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(PNG)
            assert path.stat().st_size > 10_000


def test_the_summary_holds_the_run_in_numbers(tmp_path: Path) -> None:
    write_report(a_run(), tmp_path)

    content = json.loads((tmp_path / "summary.json").read_text())

    expected = {
        "task": "watch",
        "accuracy": 0.94,
        "seconds_to_target": 80,
        "updates_accepted": 1800,
        "updates_refused": 2,
        "server_steps": 360,
        "uplink_bytes": 1_368_000,
        "uplink_bytes_float32": 342_000_000,
        "downlink_bytes": 24_000_000,
        "staleness_p50": 3,
        "staleness_max": 40,
        "model_version": 360,
        "served_hash": "ab" * 32,
        "chain_head": "cd" * 32,
        "seed": 5,
    }
    assert {key: content[key] for key in expected} == expected
    assert content["restarts"] == {"aggregator": 1}


def test_a_run_that_missed_its_target_says_so() -> None:
    run = a_run(evaluations=(an_evaluation(80, 0.9),))

    assert summary(run)["seconds_to_target"] is None
    assert "target 93% not reached" in closing_text(run, Path("report"))


def test_a_run_without_any_evaluation_still_gets_its_report(tmp_path: Path) -> None:
    run = a_run(evaluations=(), staleness={}, devices=(), updates_accepted=0, uplink_bytes=0)

    assert len(write_report(run, tmp_path)) == 6


def test_the_roles_file_names_the_current_pid_of_each_role(tmp_path: Path) -> None:
    write_roles(a_run().roles, tmp_path)
    write_roles(a_run(aggregator_pid=977).roles, tmp_path)

    assert json.loads((tmp_path / "roles.json").read_text()) == {
        "broker": 300,
        "aggregator": 977,
        "evaluator": 303,
        "worker-0": 310,
        "worker-1": 311,
        "worker-2": 312,
        "worker-3": 313,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["roles.json"]


def test_without_matplotlib_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(ToolMissingError, match=r"headwater\[demo\]"):
        write_report(a_run(), tmp_path)
