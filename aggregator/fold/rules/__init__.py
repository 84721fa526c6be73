"""The server rules, a file each."""

from aggregator.fold.rules.base import Arrival, Rule
from aggregator.fold.rules.buffered import Buffered
from aggregator.fold.rules.fedasync import FedAsync
from aggregator.fold.rules.fedbuff import FedBuff
from broker_topics.task import TaskSettings

__all__ = ["Arrival", "Buffered", "FedAsync", "FedBuff", "Rule", "server_rule"]


def server_rule(settings: TaskSettings) -> Rule:
    """The rule that a task's settings choose; `buffered` without its arrival correction is FedBuff.

    >>> server_rule(TaskSettings(rule="fedasync", buffer_size=10)).buffer_size
    1
    """
    if settings.rule == "fedasync":
        return FedAsync(mixing=settings.fedasync_mixing, weight_limit=1 / settings.server_learning_rate)
    size, backlog = settings.buffer_size, settings.backlog_buffer_size
    limit = size / settings.server_learning_rate
    if settings.rule == "fedbuff" or not settings.arrival_correction:
        return FedBuff(buffer_size=size, backlog_buffer_size=backlog, weight_limit=limit)
    return Buffered(
        buffer_size=size, backlog_buffer_size=backlog, weight_limit=limit, relative=settings.staleness_relative
    )
