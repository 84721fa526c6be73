"""Writes what is left of a run: `summary.json`, `roles.json` and the pictures."""

import json
import os
from pathlib import Path
from typing import Any

from headwater.demo.figures import write_figures
from headwater.demo.snapshot import Role, Snapshot
from headwater.demo.text_plot import clock, human_bytes


def write_report(snapshot: Snapshot, folder: Path) -> list[Path]:
    """Write the report of a finished run into `folder`, which is created; returns the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    summary_file = folder / "summary.json"
    _write_json(summary_file, summary(snapshot))
    return [summary_file, *write_figures(snapshot, folder)]


def write_roles(roles: tuple[Role, ...], folder: Path) -> None:
    """Write `roles.json`, name to current pid, whenever a role starts; a reader never sees half a file."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "roles.json", {role.name: role.pid for role in roles})


def summary(snapshot: Snapshot) -> dict[str, Any]:
    """The run in numbers; `seconds_to_target` is null where the target was not reached."""
    last = snapshot.evaluations[-1] if snapshot.evaluations else None
    return {
        "task": snapshot.task,
        "seed": snapshot.seed,
        "held_out": snapshot.held_out,
        "broker": snapshot.broker,
        "target": snapshot.target,
        "accuracy": snapshot.accuracy,
        "loss": last.loss if last else None,
        "seconds": round(snapshot.elapsed_s, 3),
        "seconds_to_target": snapshot.seconds_to_target,
        "devices": len(snapshot.devices),
        "updates_accepted": snapshot.updates_accepted,
        "updates_refused": snapshot.updates_refused,
        "rejects": dict(snapshot.rejects),
        "server_steps": snapshot.server_steps,
        "uplink_bytes": snapshot.uplink_bytes,
        "uplink_bytes_float32": snapshot.uplink_bytes_float32,
        "uplink_times_smaller": round(snapshot.compression, 1),
        "downlink_bytes": snapshot.downlink_bytes,
        "staleness_p50": snapshot.staleness_p50,
        "staleness_max": snapshot.staleness_max,
        "restarts": {role.name: role.restarts for role in snapshot.roles if role.restarts},
        "model_version": snapshot.model_version,
        "served_hash": snapshot.served_hash,
        "chain_head": snapshot.chain_head,
    }


def closing_text(snapshot: Snapshot, folder: Path) -> str:
    """What a person reads when the run is over."""
    reached = snapshot.seconds_to_target
    verdict = f"reached after {clock(reached)} min" if reached is not None else "not reached"
    restarts = sum(role.restarts for role in snapshot.roles)
    return "\n".join(
        (
            f"Held-out accuracy   {snapshot.accuracy:.1%} (target {snapshot.target:.0%} {verdict})",
            f"Model version       {snapshot.model_version}, served {snapshot.served_hash[:16]}…",
            f"Updates             {snapshot.updates_accepted} accepted, {snapshot.updates_refused} refused,"
            f" {len(snapshot.devices)} devices, {restarts} restarts of a process",
            f"Sent by devices     {human_bytes(snapshot.uplink_bytes)},"
            f" {snapshot.compression:.0f}× below {human_bytes(snapshot.uplink_bytes_float32)} of float32",
            f"Staleness           median {snapshot.staleness_p50} versions, largest {snapshot.staleness_max}",
            f"Report              {folder}",
        )
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace `path` in one step."""
    unfinished = path.with_suffix(".json.tmp")
    unfinished.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(unfinished, path)
