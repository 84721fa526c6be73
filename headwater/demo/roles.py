"""The processes of the demo, as they are started: `python -m headwater.demo.roles ROLE PLAN`.

A role ends with its parent: when standard input closes, whoever started it is gone.
"""

import asyncio
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from aggregator.shell import Aggregator
from broker_topics.errors import HeadwaterError
from broker_topics.kafka import KafkaBus
from broker_topics.settings import ConnectionSettings
from headwater.demo.data import load_fleet
from headwater.demo.fleet import run_group
from headwater.demo.model import as_tensors, evaluate, make_model, use_one_thread
from headwater.demo.plan import Plan
from headwater.demo.snapshot import Activity
from headwater.evaluator import Evaluator, Scores
from headwater.process import Shown, observed, stop_on_signals
from headwater.sections import AggregatorSettings
from monitoring.logs import configure
from monitoring.metrics import Metrics
from monitoring.page.history import History


async def run_aggregator(plan: Plan, bus: Any, stop: asyncio.Event) -> None:
    """The one aggregator; metrics and the fleet page are on a port of this machine."""
    history = History()
    aggregator = Aggregator(bus=bus, task=plan.task, metrics=Metrics(task=plan.task), stop=stop, history=history)
    async with observed(
        aggregator.metrics,
        aggregator.readiness,
        settings=AggregatorSettings(listen_port=plan.page_port, fleet_page=True),
        stragglers=aggregator.stragglers,
        shown=Shown(task=plan.task, history=history),
    ):
        await aggregator.run()


async def run_evaluator(plan: Plan, bus: Any, stop: asyncio.Event) -> None:
    """Scores the served model on the held-out windows."""
    use_one_thread()
    fleet = load_fleet(plan.held_out, plan.seed)
    x, y = as_tensors(fleet.test_x, fleet.test_y)

    def score(model: Any) -> Scores:
        accuracy, loss = evaluate(model, x, y)
        return {"accuracy": accuracy, "loss": loss}

    model = make_model(plan.seed)
    await Evaluator(bus=bus, task=plan.task, model=model, evaluate=score, stop=stop, min_interval_s=1.0).run()


async def run_role(name: str, plan: Plan, stop: asyncio.Event) -> None:
    """Run one role over Kafka until `stop`."""
    settings = ConnectionSettings.load(os.environ, bootstrap=plan.bootstrap)
    if name.startswith("worker-"):
        devices = plan.group(int(name.removeprefix("worker-")))
        await run_group(plan, devices, lambda: KafkaBus(settings), stop, _print_activity)
        return
    async with KafkaBus(settings) as bus:
        await (run_aggregator if name == "aggregator" else run_evaluator)(plan, bus, stop)


def _print_activity(device: str, activity: Activity, at_s: float) -> None:
    sys.stdout.write(json.dumps([device, activity, at_s]) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


async def _main(name: str, plan: Plan) -> None:
    await run_role(name, plan, stop_on_signals())


def main() -> None:
    """Entry point of a role's process."""
    name, plan_file = sys.argv[1:]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    configure(level="warning")
    try:
        asyncio.run(_main(name, Plan.read(Path(plan_file))))
    except HeadwaterError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
