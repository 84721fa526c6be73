"""`python -m benchmarks` measures everything against its bars; `--only codecs|ingest|latency|memory|recovery` a part.

Takes less than ten minutes on two cores. Prints a table and writes report/bench.json; a bar that is missed says so and
does not change the exit status: it is a measurement, not a test.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.codecs import codec_figures
from benchmarks.figures import Figure, show, write
from benchmarks.ingest import ingest_figures
from benchmarks.latency import latency_figures
from benchmarks.memory import memory_figures
from benchmarks.place import Place
from benchmarks.recovery import recovery_figures
from broker_topics.local.cluster import LocalCluster

Part = Callable[[Place], Awaitable[list[Figure]]]


async def _codecs(place: Place) -> list[Figure]:
    place.say("codecs, in this process alone")
    return await asyncio.to_thread(codec_figures)


async def _ingest(place: Place) -> list[Figure]:
    sizes = {1_270_000: 12_000, 127_000: 30_000, 49_000: 30_000}
    return [figure for size, count in sizes.items() for figure in await ingest_figures(place, size=size, count=count)]


async def _latency(place: Place) -> list[Figure]:
    return await latency_figures(place, versions=200)


async def _memory(place: Place) -> list[Figure]:
    return await memory_figures(place, megabytes=(4, 40, 200))


async def _recovery(place: Place) -> list[Figure]:
    return await recovery_figures(place, megabytes=40, backlog=2_000, kills=3)


_PARTS: dict[str, Part] = {
    "recovery": _recovery,
    "ingest": _ingest,
    "latency": _latency,
    "memory": _memory,
    "codecs": _codecs,
}


async def _measure(names: list[str], bootstrap: str | None) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as name:
        folder = Path(name)
        if bootstrap is not None:
            return await _all(Place(bootstrap, folder), names)
        async with LocalCluster(data=folder / "kafka", progress=lambda text: print(text, flush=True)) as own:
            return await _all(Place(own.bootstrap, folder), names)


async def _all(place: Place, names: list[str]) -> list[Figure]:
    return [figure for name in names for figure in await _PARTS[name](place)]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure speed, memory and bytes.")
    parser.add_argument("--only", choices=sorted(_PARTS), action="append", help="only this part; may be repeated")
    parser.add_argument("--bootstrap", help="a broker that runs already, instead of one of our own")
    parser.add_argument("--out", type=Path, default=Path("report/bench.json"))
    chosen = parser.parse_args()
    figures = asyncio.run(_measure(chosen.only or list(_PARTS), chosen.bootstrap))
    show(figures)
    write(figures, chosen.out)
    missed = sum(figure["met"] is False for figure in figures)
    print(f"{missed} of {sum(figure['bar'] is not None for figure in figures)} bars missed; written to {chosen.out}")


if __name__ == "__main__":
    main()
