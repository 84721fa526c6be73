"""A finished run of three devices, to draw and to report."""

from collections.abc import Mapping

from headwater.demo.snapshot import Arrival, Device, Evaluation, Role, Snapshot, Span


def an_evaluation(at_s: float, accuracy: float) -> Evaluation:
    return Evaluation(
        at_s=at_s,
        version=int(at_s) * 4,
        updates=int(at_s) * 20,
        uplink_bytes=int(at_s) * 15_200,
        accuracy=accuracy,
        loss=0.3,
    )


def a_device(name: str, period_s: float, updates: int, offline: bool = False) -> Device:
    return Device(
        name=name,
        period_s=period_s,
        examples=150,
        updates=updates,
        refused=0,
        mean_staleness=3.0,
        activity="offline" if offline else "training",
    )


DEVICES = (
    a_device("watch-01-left", 0.8, 1200),
    a_device("watch-02-left", 1.2, 500, offline=True),
    a_device("watch-10-right", 10.0, 100),
)
EVALUATIONS = tuple(an_evaluation(at_s, accuracy) for at_s, accuracy in ((20, 0.7), (60, 0.93), (70, 0.94), (80, 0.94)))


def a_run(
    *,
    elapsed_s: float = 90.0,
    aggregator_pid: int | None = 302,
    evaluations: tuple[Evaluation, ...] = EVALUATIONS,
    devices: tuple[Device, ...] = DEVICES,
    staleness: Mapping[int, int] | None = None,
    updates_accepted: int = 1800,
    uplink_bytes: int = 1_368_000,
    begun: bool = True,
) -> Snapshot:
    return Snapshot(
        task="watch",
        broker="Apache Kafka at localhost:19092",
        seed=5,
        held_out="windows",
        target=0.93,
        elapsed_s=elapsed_s,
        begun=begun,
        model_version=360,
        updates_accepted=updates_accepted,
        updates_per_s=20.0,
        rejects={"stale": 2},
        server_steps=360,
        uplink_bytes=uplink_bytes,
        uplink_bytes_float32=342_000_000,
        downlink_bytes=24_000_000,
        staleness={1: 300, 3: 1400, 40: 100} if staleness is None else staleness,
        evaluations=evaluations,
        devices=devices,
        roles=(
            Role(name="broker", pid=300, state="running", restarts=0),
            Role(name="aggregator", pid=aggregator_pid, state="running" if aggregator_pid else "down", restarts=1),
            Role(name="evaluator", pid=303, state="running", restarts=0),
            *(Role(name=f"worker-{index}", pid=310 + index, state="running", restarts=0) for index in range(4)),
        ),
        happenings=("aggregator (pid 301) was killed by signal 9", "aggregator is back as pid 302"),
        spans=(
            Span(device="watch-01-left", activity="training", start_s=0.0, end_s=90.0),
            Span(device="watch-02-left", activity="offline", start_s=40.0, end_s=90.0),
        ),
        arrivals=(Arrival(device="watch-01-left", at_s=12.0, staleness=3),),
        served_hash="ab" * 32,
        chain_head="cd" * 32,
    )
