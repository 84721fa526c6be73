"""The device: local training, error feedback and the outbox that keeps every update until its fate is known."""

from worker.context import TrainContext
from worker.events import Kind
from worker.pacing import Limits
from worker.reporting import WorkerEvent
from worker.result import LocalResult
from worker.worker import Worker

__all__ = ["Kind", "Limits", "LocalResult", "TrainContext", "Worker", "WorkerEvent"]
