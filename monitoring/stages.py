"""How long the stages of the aggregator's work take, as histograms."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from monitoring.metrics import Metrics, StageName

A = TypeVar("A")
B = TypeVar("B")


@contextmanager
def stage(metrics: Metrics, name: StageName) -> Iterator[None]:
    """Measure the enclosed work as one pass of a stage, also when it raises; any thread may use it."""
    begin = time.perf_counter()
    try:
        yield
    finally:
        metrics.stage_duration_seconds.labels(stage=name).observe(time.perf_counter() - begin)


@contextmanager
def stage_within(
    metrics: Metrics, outer: StageName, inner: StageName
) -> Iterator[Callable[[Callable[[A], B]], Callable[[A], B]]]:
    """Measure a pass of one stage whose calls of a function, wrapped by what is given, are a pass of another stage."""
    inside = 0.0

    def watch(work: Callable[[A], B]) -> Callable[[A], B]:
        def watched(given: A) -> B:
            nonlocal inside
            begin = time.perf_counter()
            try:
                return work(given)
            finally:
                inside += time.perf_counter() - begin

        return watched

    begin = time.perf_counter()
    try:
        yield watch
    finally:
        whole = time.perf_counter() - begin
        metrics.stage_duration_seconds.labels(stage=inner).observe(inside)
        metrics.stage_duration_seconds.labels(stage=outer).observe(whole - inside)
