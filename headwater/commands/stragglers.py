"""`headwater stragglers`: which devices lag."""

import http.client
import json as json_
from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.table import Table

from broker_topics.bus import Bus
from broker_topics.errors import BusError, ConfigError
from headwater.checkup.finding import console
from headwater.checkup.stragglers import Order, Straggler, read_stragglers
from headwater.checkup.words import span
from headwater.options import Bootstrap, Task
from headwater.prepared import connection
from headwater.process import with_bus

_ANSWER_S = 10.0


def command(
    task: Task,
    count: Annotated[int, typer.Option("-k", min=1, max=1000, help="Devices to list.")] = 20,
    by: Annotated[
        Order,
        typer.Option(
            help="rarity: how rarely it is heard. silence: for how long not, in its own usual distances. staleness: "
            "refused as stale, then how old the base of its newest update was."
        ),
    ] = "rarity",
    url: Annotated[
        str | None,
        typer.Option(help="http://HOST:PORT of the aggregator: ask for what it has seen since it started, instead."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """List the devices that lag most, from the broker alone: the newest keyframe and the updates since. Writes nothing.

    Example: headwater stragglers --task watch --by silence
    """
    if url is not None:
        rows = _asked(url, count)
        typer.echo(json_.dumps(rows, indent=2)) if json else console().print(_plain(rows))
        return

    async def work(bus: Bus) -> list[Straggler]:
        return await read_stragglers(bus, task, order=by)

    found = with_bus(connection(bootstrap), work)
    if json:
        rows = [asdict(row) for row in found[:count]]
        typer.echo(json_.dumps({"task": task, "devices": len(found), "by": by, "stragglers": rows}, indent=2))
    else:
        console().print(_table(found, count))


def _table(found: list[Straggler], count: int) -> Table:
    rows = Table(title=f"{min(count, len(found))} of {len(found)} devices", title_justify="left", box=None)
    rows.add_column("device", overflow="fold")
    for name in ("times rarer", "silent for", "last heard", "staleness", "stale", "accepted"):
        rows.add_column(name, justify="right")
    rows.add_column("last outcome")
    for row in found[:count]:
        heard = f"{span(row.last_heard_s)} ago" if row.last_heard_s is not None else f"{row.versions_ago} versions ago"
        staleness = "" if row.staleness is None else str(row.staleness)
        rows.add_row(
            row.client_id,
            f"{row.times_rarer:g}×",
            f"{row.silent_for:g}×",
            heard,
            staleness,
            str(row.stale),
            str(row.accepted),
            row.last_outcome,
        )
    return rows


def _plain(rows: list[dict[str, Any]]) -> Table:
    """What the aggregator told, as it told it."""
    table = Table(title=f"{len(rows)} devices since the aggregator started", title_justify="left", box=None)
    for name in rows[0] if rows else ():
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    return table


def _asked(url: str, count: int) -> list[dict[str, Any]]:
    """The answer of /debug/stragglers."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
        raise ConfigError(f"{url}: give the aggregator's address as http://HOST:PORT")
    connected = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=_ANSWER_S)
    try:
        connected.request("GET", f"/debug/stragglers?k={count}")
        answer: list[dict[str, Any]] = json_.loads(connected.getresponse().read())["stragglers"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise BusError(f"{url}: no aggregator answers there ({error}); leave --url out to ask the broker") from error
    finally:
        connected.close()
    return answer
