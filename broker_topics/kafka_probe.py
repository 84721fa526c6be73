"""What a cluster tells about itself and about this user's rights, without a write: for check-ups only."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from aiokafka.protocol.api import Request, RequestStruct, Response, ResponseHeader_v0
from aiokafka.protocol.types import (
    Array,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    String,
    TaggedFields,
)

from broker_topics.access import Operation
from broker_topics.kafka_connect import Connection, make_client, quietly
from broker_topics.kafka_errors import LIBRARY_ERRORS, translate
from broker_topics.settings import ConnectionSettings

_BITS = {
    3: Operation.READ,
    4: Operation.WRITE,
    5: Operation.CREATE,
    8: Operation.DESCRIBE,
    10: Operation.DESCRIBE_CONFIGS,
}
"""Kafka's numbers for operations; a right that the table does not name is of no interest."""

_UNKNOWN_TOPIC, _DENIED = 3, 29
_SUPPORTED, _FINALIZED = 0, 2
_METADATA_VERSION = "metadata.version"
_RELEASES = ((33, "newer than 4.4"), (30, "4.4"), (29, "4.3"), (27, "4.2"), (25, "4.1"), (21, "4.0"), (0, "3"))
"""Metadata level above which a broker is of which release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """One partition: who should have it, who has all of it; leader -1 is nobody."""

    partition: int
    leader: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSight:
    """A topic as this user sees it; `rights` is None where the cluster does not say, hidden topics give none."""

    hidden: bool
    rights: frozenset[Operation] | None
    partitions: tuple[Replicas, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """A cluster at one instant. release: such as "4.4", "" where it does not say. topics: those that exist."""

    brokers: tuple[int, ...]
    release: str
    upgrade_open: bool
    topics: Mapping[str, TopicSight]


async def look(settings: ConnectionSettings, topics: Sequence[str]) -> Sight:
    """Ask one broker.

    Raises:  ConfigError, BusError: with the true cause.
    """
    connection = Connection.of(settings)
    client = await make_client(connection)
    try:
        async with asyncio.timeout(connection.timeout_s):
            node = client.get_random_node()
            metadata = (await client.send(node, _Metadata(topics))).to_object()
            features = await client.send(node, _ApiVersions())
    except LIBRARY_ERRORS as error:
        raise translate(error, "looking at the cluster") from error
    finally:
        await quietly(client.close())
    supported = _level(features.tags.get(_SUPPORTED), highest_first=False)
    finalized = _level(features.tags.get(_FINALIZED), highest_first=True)
    return Sight(
        brokers=tuple(sorted(broker["node_id"] for broker in metadata["brokers"])),
        release=next((name for above, name in _RELEASES if supported > above), ""),
        upgrade_open=0 < finalized < supported,
        topics={t["topic"]: _sight(t) for t in metadata["topics"] if t["error_code"] != _UNKNOWN_TOPIC},
    )


def _sight(topic: Mapping[str, Any]) -> TopicSight:
    bits = topic["authorized_operations"]
    rights = frozenset(operation for bit, operation in _BITS.items() if bits >> bit & 1) if bits >= 0 else None
    return TopicSight(
        hidden=topic["error_code"] == _DENIED,
        rights=frozenset() if topic["error_code"] == _DENIED else rights,
        partitions=tuple(
            Replicas(
                partition=each["partition"],
                leader=each["leader"],
                replicas=tuple(each["replicas"]),
                in_sync=tuple(each["isr"]),
            )
            for each in topic["partitions"]
        ),
    )


def _level(data: bytes | None, *, highest_first: bool) -> int:
    """The highest metadata level in a list of features, each with two; 0 where it is not among them."""
    for name, one, other, _ in (_FEATURES.decode(BytesIO(data)) if data else None) or ():
        if name == _METADATA_VERSION:
            return int(one if highest_first else other)
    return 0


_FEATURES = CompactArray(("name", CompactString("utf-8")), ("one", Int16), ("other", Int16), ("tags", TaggedFields))


class _ApiVersionsResponse(Response):
    API_KEY = 18
    API_VERSION = 3
    SCHEMA = Schema(
        ("error_code", Int16),
        (
            "api_versions",
            CompactArray(("api_key", Int16), ("min_version", Int16), ("max_version", Int16), ("tags", TaggedFields)),
        ),
        ("throttle_time_ms", Int32),
        ("tags", TaggedFields),
    )


class _ApiVersionsV3(RequestStruct):
    API_KEY = 18
    API_VERSION = 3
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _ApiVersionsResponse
    SCHEMA = Schema(
        ("client_software_name", CompactString("utf-8")),
        ("client_software_version", CompactString("utf-8")),
        ("tags", TaggedFields),
    )

    def parse_response_header(self, read_buffer: BytesIO | bytes) -> ResponseHeader_v0:
        """The old header, whatever the version: a client asks this before it knows what the broker speaks."""
        return ResponseHeader_v0.decode(read_buffer)


class _ApiVersions(Request[_ApiVersionsV3]):
    API_KEY = 18

    def build(self, request_struct_class: type[_ApiVersionsV3]) -> _ApiVersionsV3:
        return request_struct_class("headwater", "1", {})


class _MetadataResponse(Response):
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            Array(("node_id", Int32), ("host", String("utf-8")), ("port", Int32), ("rack", String("utf-8"))),
        ),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("cluster_authorized_operations", Int32),
    )


class _MetadataV8(RequestStruct):
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _Metadata(Request[_MetadataV8]):
    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = list(topics)

    def build(self, request_struct_class: type[_MetadataV8]) -> _MetadataV8:
        return request_struct_class(self._topics, False, False, True)
