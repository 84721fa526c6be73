"""One aggregator over fixed inputs, in a process of its own whose wall clock may lie.

Prints what the chain decided, without what differs from run to run anyway: writers, hence parents and places of parts.
Args:  log_s: the time by the log's own clock at the start. file: what libfaketime reads the time from, if given; it is
       written anew between one input and the next.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import numpy as np

from broker_topics.codecs import CodecId, encode
from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog
from tests.fleet import Device, chain_of, make_task, running

LEAPS = ("+365d", "-365d", "+0", "-1d")


async def main(log_s: float, leaping: Path | None) -> None:
    """Seventeen updates, three of them refused, make seven versions; a restart stands in the middle."""
    began = asyncio.get_running_loop().time()
    async with MemoryBus(MemoryLog(now_s=lambda: log_s + asyncio.get_running_loop().time() - began)) as bus:
        await make_task(bus, "t", buffer_size=2, backlog_buffer_size=2, keyframe_every=3, flush_deadline_s=3600.0)
        device = await Device(bus, "t", "a").enter()
        for numbers in (range(8), range(8, 17)):
            async with running(bus, "t"):
                for number in numbers:
                    if leaping is not None:
                        leaping.write_text(LEAPS[number % len(LEAPS)])
                        time.time()
                    vector = np.full(8, 1e38 if number % 5 == 4 else number + 1, np.float32)
                    await device.send(device.update(0.0, encoded=encode(vector, CodecId.FLOAT32)).to_bytes())
                    await device.until_version((number + 1 - (number + 1) // 5) // 2)
        print(json.dumps([said(record) for record in await chain_of(bus, "t")]))


def said(record: object) -> list[object]:
    """What must not depend on a clock."""
    body = record.body  # type: ignore[attr-defined]
    decisions = [[decision.crc, decision.weight, decision.code] for decision in body.decisions]
    hashes = [body.state_hash.hex(), body.hidden_hash.hex(), body.served_hash.hex()]
    return [body.version, body.cause, body.keyframe, list(body.vector), decisions, hashes]


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))
