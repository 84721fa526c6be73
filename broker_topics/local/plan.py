"""What stays the same of a local cluster from start to start: ids and controller ports, kept beside its data."""

import base64
import itertools
import json
import os
import random
import socket
import uuid
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from broker_topics.errors import ConfigError

_PORTS = range(20_000, 32_000)
"""Below the ports that systems give to outgoing connections, so that none of those takes ours between two starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The identity of a cluster on disk; every node of it is formatted with these ids."""

    cluster_id: str
    directory_ids: tuple[str, ...]
    controller_ports: tuple[int, ...]

    @property
    def nodes(self) -> int:
        """How many nodes the cluster has, for life."""
        return len(self.directory_ids)

    def voters(self) -> str:
        """All controllers, as `StorageTool format --initial-controllers` takes them."""
        rows = zip(self.controller_ports, self.directory_ids, strict=True)
        return ",".join(f"{node}@127.0.0.1:{port}:{name}" for node, (port, name) in enumerate(rows, start=1))

    @classmethod
    def load_or_create(cls, data: Path, nodes: int) -> Self:
        """The plan that `data` was made with, or a new one written there.

        Raises:  ConfigError: the data belong to a cluster with another number of nodes.
        """
        path = data / "cluster.json"
        if path.exists():
            kept = json.loads(path.read_text())
            plan = cls(
                cluster_id=kept["cluster_id"],
                directory_ids=tuple(kept["directory_ids"]),
                controller_ports=tuple(kept["controller_ports"]),
            )
            if plan.nodes != nodes:
                raise ConfigError(
                    f"{data} holds a cluster of {plan.nodes} node(s): start it with --nodes {plan.nodes}, "
                    "or choose another folder with --data"
                )
            return plan
        plan = cls(
            cluster_id=new_id(),
            directory_ids=tuple(new_id() for _ in range(nodes)),
            controller_ports=tuple(free_ports(nodes)),
        )
        write_whole(path, json.dumps(asdict(plan), indent=1))
        return plan


def write_whole(path: Path, text: str) -> None:
    """Write a small file so that a reader sees all of it or the one before."""
    scratch = path.with_name(path.name + ".new")
    scratch.write_text(text)
    os.replace(scratch, path)


def new_id() -> str:
    """A random id in Kafka's form: 22 characters of URL-safe base64, not beginning with a dash."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes)[:22].decode()).startswith("-"):
        pass
    return text


def port_is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(count: int, *, besides: Collection[int] = ()) -> list[int]:
    """So many different ports that are free now, none of them in `besides`."""
    order = random.SystemRandom().sample(_PORTS, len(_PORTS))
    found = list(itertools.islice((p for p in order if p not in besides and port_is_free(p)), count))
    if len(found) < count:
        raise ConfigError(f"no free port between {_PORTS.start} and {_PORTS.stop}: end other programs and try again")
    return found
