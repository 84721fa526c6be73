"""A bare aiokafka consumer: how fast the updates of a task can be read by somebody who does nothing with them.

`python -m benchmarks.consumer BOOTSTRAP TOPIC` prints records per second, after the first batch of each pass.
"""

import asyncio
import sys
import time

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from broker_topics.topics import UPDATE_PARTITIONS

_AT_LEAST_S = 3.0
"""A shorter look would find a busy machine's scheduler in a generous mood towards a process that just began."""


async def records_per_second(bootstrap: str, topic: str) -> float:
    """Read the topic from beginning to end, again and again, with the aggregator's own fetch sizes."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        fetch_max_bytes=4 * 1024 * 1024,
        max_partition_fetch_bytes=2 * 1024 * 1024,
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(UPDATE_PARTITIONS)]
        waiting: int = sum((await consumer.end_offsets(partitions)).values())
        consumer.assign(partitions)
        seconds, count = 0.0, 0
        while seconds < _AT_LEAST_S:
            for partition in partitions:
                consumer.seek(partition, 0)
            first = read = _count(await consumer.getmany(timeout_ms=10_000, max_records=500))
            begin = time.perf_counter()
            while read < waiting:
                read += _count(await consumer.getmany(timeout_ms=10_000, max_records=500))
            seconds, count = seconds + time.perf_counter() - begin, count + waiting - first
        return count / seconds
    finally:
        await consumer.stop()


def _count(batches: dict[TopicPartition, list[object]]) -> int:
    """Records in what `getmany` returned."""
    return sum(map(len, batches.values()))


if __name__ == "__main__":
    print(asyncio.run(records_per_second(sys.argv[1], sys.argv[2])))
