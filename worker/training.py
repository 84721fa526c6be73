"""One local training: load, call the user's function, read; everything that it can do wrong becomes an event."""

import threading
import traceback
from collections.abc import Callable
from typing import Any

from broker_topics.errors import ConfigError
from monitoring.logs import get_logger
from worker import torch_threads
from worker.adapters import Adapter
from worker.context import TrainContext
from worker.events import Train, Trained, TrainingFailed, TrainingSkipped
from worker.result import LocalResult, pull_of
from worker.state import Base

TrainFunction = Callable[[Any, TrainContext], LocalResult]

log = get_logger("worker")


class Training:
    """The user's model and function; `once` runs in a thread, one at a time."""

    def __init__(
        self,
        *,
        model: Any,
        adapter: Adapter,
        train: TrainFunction,
        can_train: Callable[[], bool] | None,
        stop: threading.Event,
        clock: Callable[[], float],
    ) -> None:
        self._model, self._adapter, self._function = model, adapter, train
        self._can_train, self._stop, self._clock = can_train, stop, clock

    def once(self, wanted: Train, base: Base) -> Trained | TrainingFailed | TrainingSkipped:
        """Train from `wanted.start`, or from the base itself.

        Raises:  ConfigError: the function returned something else than a LocalResult.
        """
        context = TrainContext(
            base_version=base.version,
            learning_rate=wanted.settings.local_learning_rate,
            epochs=wanted.epochs,
            deadline_s=wanted.deadline_s,
            max_steps=wanted.max_steps,
            seed=wanted.seed,
            stop=self._stop,
            settings=wanted.settings,
            base=base.vector,
            layout=self._adapter.layout,
        )
        try:
            if self._can_train is not None and not self._can_train():
                return TrainingSkipped("can_train said no")
            torch_threads.look()
            self._adapter.load(base.vector if wanted.start is None else wanted.start)
            began_s = self._clock()
            result = self._function(self._model, context)
            seconds = self._clock() - began_s
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            log.error("training_failed", reason=reason, traceback=traceback.format_exc())
            return TrainingFailed(reason)
        if not isinstance(result, LocalResult):
            raise ConfigError(f"the training function returned {type(result).__name__}: return a LocalResult")
        if result.num_steps == 0:
            return TrainingSkipped("no step was made")
        return self._outcome(result, base, context, seconds)

    def _outcome(self, result: LocalResult, base: Base, context: TrainContext, seconds: float) -> Trained:
        shrink = context.learning_rate * (result.proximal or context.proximal_used)
        if shrink >= 1:
            raise ConfigError(f"learning rate · μ is {shrink}: it must be below 1")
        return Trained(
            base=base,
            local=self._adapter.read(),
            num_examples=int(result.num_examples),
            num_steps=int(result.num_steps),
            pull=pull_of(result.num_steps, momentum=result.momentum, shrink=shrink),
            seconds=seconds,
            metrics={name: float(value) for name, value in result.metrics.items()},
        )
