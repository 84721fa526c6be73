"""What the aggregator's own port says, where it can be reached from here."""

import http.client
import json
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from broker_topics.errors import ConfigError

_ANSWER_S = 2.0
_MOST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """An aggregator that answered; `task` is "" where its metrics do not say."""

    url: str
    ready: bool
    reason: str
    task: str
    leader: bool


def ask(url: str) -> Neighbour | None:
    """Ask an aggregator how it is; None where nothing of ours answers there within two seconds.

    Args:    url: such as http://127.0.0.1:9464; any host is taken, only http is spoken.
    Raises:  ConfigError: it is no such address.
    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme != "http" or not host or parts.path not in ("", "/"):
        raise ConfigError(f"{url}: give the aggregator's address as http://HOST:PORT")
    try:
        ready, reason = _get(host, port or 80, "/readyz")
        status, metrics = _get(host, port or 80, "/metrics")
        told = json.loads(reason)["reason"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
    task = re.search(r'^headwater_model_version\{[^}]*\btask="([^"]*)"', metrics, re.MULTILINE)
    leader = re.search(r"^headwater_leader(?:\{[^}]*\})? 1(?:\.0)?$", metrics, re.MULTILINE)
    if status != http.client.OK or "headwater_model_version" not in metrics:
        return None
    return Neighbour(
        url=url,
        ready=ready == http.client.OK,
        reason=str(told),
        task=task[1] if task else "",
        leader=leader is not None,
    )


def _get(host: str, port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(_MOST_BYTES).decode("utf-8", "replace")
    finally:
        connection.close()
