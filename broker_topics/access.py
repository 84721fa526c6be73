"""Who may do what with a task's topics: the table that access rules of a broker are written from."""

from collections.abc import Mapping
from enum import StrEnum

from broker_topics.topics import Topic


class Role(StrEnum):
    """A kind of process, with a Kafka user of its own."""

    AGGREGATOR = "aggregator"
    DEVICE = "device"
    EVALUATOR = "evaluator"
    TASK_CREATOR = "task-creator"


class Operation(StrEnum):
    """Kafka's names for what a rule allows; reading and writing include Describe."""

    READ = "Read"
    WRITE = "Write"
    CREATE = "Create"
    DESCRIBE = "Describe"
    DESCRIBE_CONFIGS = "DescribeConfigs"


_READ, _WRITE = frozenset({Operation.READ}), frozenset({Operation.WRITE})
_MAKE = frozenset({Operation.CREATE, Operation.DESCRIBE, Operation.DESCRIBE_CONFIGS})

ACCESS: Mapping[Role, Mapping[Topic, frozenset[Operation]]] = {
    Role.AGGREGATOR: {
        Topic.UPDATES: _READ | {Operation.DESCRIBE_CONFIGS},
        Topic.MODELS: _READ | _WRITE,
        Topic.COMMITS: _READ | _WRITE,
        Topic.REJECTS: _WRITE,
        Topic.CLIENTS: frozenset({Operation.DESCRIBE}),
        Topic.CONTROL: _READ,
        Topic.TELEMETRY: _READ,
    },
    Role.DEVICE: {
        Topic.UPDATES: _WRITE,
        Topic.MODELS: _READ,
        Topic.COMMITS: _READ,
        Topic.TELEMETRY: _WRITE,
    },
    Role.EVALUATOR: {
        Topic.MODELS: _READ,
        Topic.COMMITS: _READ,
        Topic.TELEMETRY: _WRITE,
    },
    Role.TASK_CREATOR: dict.fromkeys(Topic, _MAKE)
    | {Topic.COMMITS: _MAKE | _READ | _WRITE, Topic.MODELS: _MAKE | _READ | _WRITE},
}
"""Role → topic → operations; what is not here is not needed."""
