"""Questions to the cluster: which topics, which partitions, from where to where; and creating topics."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError, KafkaError, NodeNotReadyError, TopicAlreadyExistsError
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest

from broker_topics.errors import BusError, ConfigError
from broker_topics.kafka_batches import Batch, batches_in
from broker_topics.kafka_connect import Connection, make_client, quietly
from broker_topics.kafka_errors import LIBRARY_ERRORS, code_error, translate
from broker_topics.topics import TopicSpec

EARLIEST, LATEST = -2, -1
"""Kafka's own numbers for the two ends of a log."""

_RETRY_S = 0.1
_FETCH_WAIT_MS = 500
_FETCH_BYTES = 2 * 1024 * 1024
_APPEARS_S = 1.0
_UNKNOWN_TOPIC = 3
_TOPIC_RESOURCE = 2

_Answer = TypeVar("_Answer")


class KafkaQueries:
    """One connection for all questions; made at the first, made anew after a failure."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._client: AIOKafkaClient | None = None
        self._connecting = asyncio.Lock()
        self._counts: dict[str, int] = {}

    async def connect(self) -> None:
        """Make sure that there is a connection; raises ConfigError or BusError with the true cause."""
        await self._connected()

    async def close(self) -> None:
        """Give the connection up within a deadline."""
        client, self._client = self._client, None
        if client is not None:
            await quietly(client.close())

    async def partition_count(self, topic: str) -> int:
        """How many partitions a topic has, asked once; raises ConfigError where it does not exist."""
        if topic not in self._counts:
            self._counts[topic] = len(await self._leaders(topic))
        return self._counts[topic]

    async def offsets(self, topic: str, end: int) -> dict[int, int]:
        """Of every partition the offset at one end of the log, `EARLIEST` or `LATEST`."""
        leaders = await self._leaders(topic)

        async def ask(client: AIOKafkaClient) -> dict[int, int]:
            by_leader: dict[int, list[tuple[int, int]]] = {}
            for partition, leader in leaders.items():
                by_leader.setdefault(leader, []).append((partition, end))
            answers = await asyncio.gather(
                *(client.send(node, OffsetRequest(-1, 0, [(topic, asked)])) for node, asked in by_leader.items())
            )
            found: dict[int, int] = {}
            for answer in answers:
                for partition, code, _, offset in answer.topics[0][1]:
                    if failed := code_error(code):
                        leaders.update(await self._leaders(topic))
                        raise failed(topic)
                    found[partition] = offset
            return dict(sorted(found.items()))

        return await self._ask(f"offsets of {topic}", ask)

    async def batches(self, topic: str, partition: int, offset: int) -> tuple[list[Batch], int]:
        """What lies in a partition from `offset` on, by the batches' own headers, and where its log ends."""
        leaders = await self._leaders(topic)

        async def ask(client: AIOKafkaClient) -> tuple[list[Batch], int]:
            request = FetchRequest(_FETCH_WAIT_MS, 1, _FETCH_BYTES, 0, [(topic, [(partition, offset, _FETCH_BYTES)])])
            answer = await client.send(leaders[partition], request)
            ((_, ((_, code, end, *rest),)),) = answer.topics
            if failed := code_error(code):
                leaders.update(await self._leaders(topic))
                raise failed(topic)
            return batches_in(rest[-1] or b""), end

        return await self._ask(f"batches of {topic}", ask)

    async def existing(self, topics: Sequence[str]) -> set[str]:
        """Those of the topics that exist; raises ConfigError where access rules hide one."""

        async def ask(client: AIOKafkaClient) -> set[str]:
            metadata = await self._metadata(client, topics)
            return {found["topic"] for found in metadata if found["error_code"] != _UNKNOWN_TOPIC}

        return await self._ask("which topics exist", ask)

    async def describe(self, topics: Sequence[str]) -> dict[str, TopicSpec]:
        """Those of the topics that exist, with every setting that is in force."""

        async def ask(client: AIOKafkaClient) -> dict[str, TopicSpec]:
            metadata = await self._metadata(client, topics)
            found = {t["topic"]: t["partitions"] for t in metadata if t["error_code"] != _UNKNOWN_TOPIC}
            if not found:
                return {}
            resources = [(_TOPIC_RESOURCE, name, None) for name in found]
            node = client.get_random_node()
            answer = (await client.send(node, DescribeConfigsRequest(resources))).to_object()
            specs = {}
            for resource in answer["resources"]:
                if failed := code_error(resource["error_code"]):
                    raise failed(resource["error_message"])
                name, entries = resource["resource_name"], resource["config_entries"]
                specs[name] = TopicSpec(
                    name=name,
                    partitions=len(found[name]),
                    replication=min((len(p["replicas"]) for p in found[name]), default=0),
                    settings={e["config_names"]: e["config_value"] for e in entries if e["config_value"] is not None},
                )
            return specs

        return await self._ask("topics' settings", ask)

    async def create(self, specs: Sequence[TopicSpec]) -> None:
        """Create the topics and wait until their leaders answer; one that exists already is left alone."""

        async def ask(client: AIOKafkaClient) -> None:
            requests: list[Any] = [(s.name, s.partitions, s.replication, [], list(s.settings.items())) for s in specs]
            timeout_ms = int(self._connection.timeout_s * 500)
            request = CreateTopicsRequest(create_topic_requests=requests, timeout=timeout_ms, validate_only=False)
            answer = await client.send(client.get_random_node(), request)
            for topic, code, message in answer.topic_errors:
                failed = code_error(code)
                if failed is not None and failed is not TopicAlreadyExistsError:
                    if failed.retriable:
                        raise failed(message)
                    raise ConfigError(f"topic {topic} cannot be created: {message or failed.description}")

        if specs:
            await self._ask("creating topics", ask)
            for spec in specs:
                await self._leaders(spec.name, appears_s=self._connection.timeout_s)
                await self.offsets(spec.name, LATEST)

    async def brokers(self) -> int:
        """How many brokers the cluster has at the moment."""

        async def ask(client: AIOKafkaClient) -> int:
            return len((await client.send(client.get_random_node(), MetadataRequest([]))).brokers)

        return await self._ask("the cluster's brokers", ask)

    async def _leaders(self, topic: str, *, appears_s: float = _APPEARS_S) -> dict[int, int]:
        """Partition → broker that leads it; waits a moment for a topic that was just created."""
        loop = asyncio.get_running_loop()
        asked_at = loop.time()

        async def ask(client: AIOKafkaClient) -> dict[int, int]:
            while True:
                (found,) = await self._metadata(client, [topic])
                if found["error_code"] != _UNKNOWN_TOPIC:
                    leaders = {p["partition"]: p["leader"] for p in found["partitions"]}
                    if leaders and min(leaders.values()) >= 0:
                        return dict(sorted(leaders.items()))
                elif loop.time() - asked_at > appears_s:
                    raise ConfigError(
                        f"topic {topic} does not exist; check the task's name, or create it: `headwater topics apply`"
                    )
                await asyncio.sleep(_RETRY_S)

        return await self._ask(f"leaders of {topic}", ask)

    async def _metadata(self, client: AIOKafkaClient, topics: Sequence[str]) -> list[dict[str, Any]]:
        # aiokafka's own look-ups let a broker create the topic that they ask about, with its defaults.
        request = MetadataRequest(list(topics), allow_auto_topic_creation=False)
        answer = await client.send(client.get_random_node(), request)
        found: list[dict[str, Any]] = answer.to_object()["topics"]
        for topic in found:
            failed = code_error(topic["error_code"])
            if failed is not None and not failed.retriable:
                raise failed(topic["topic"])
        return found

    async def _connected(self) -> AIOKafkaClient:
        async with self._connecting:
            if self._client is None:
                self._client = await make_client(self._connection)
            return self._client

    async def _ask(self, what: str, ask: Callable[[AIOKafkaClient], Awaitable[_Answer]]) -> _Answer:
        """Ask until there is an answer that will not change by asking again, or time is up."""
        last: BaseException | None = None
        try:
            async with asyncio.timeout(self._connection.timeout_s):
                while True:
                    client = await self._connected()
                    try:
                        return await ask(client)
                    except (NodeNotReadyError, KafkaConnectionError) as error:
                        last = error
                        await self._forget(client)
                    except KafkaError as error:
                        if not error.retriable:
                            raise
                        last = error
                    await asyncio.sleep(_RETRY_S)
        except TimeoutError as error:
            await self.close()
            raise BusError(
                f"{what}: no answer within {self._connection.timeout_s:g} s ({last or 'silence'})"
            ) from error
        except LIBRARY_ERRORS as error:
            await self.close()
            raise translate(error, what) from error

    async def _forget(self, client: AIOKafkaClient) -> None:
        if self._client is client:
            await self.close()
