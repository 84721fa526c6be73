"""What a preview asks of a Prometheus: one expression over a stretch of time."""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker_topics.errors import BusError, ConfigError
from monitoring.dashboards.model import RATE, TASK

_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its labels, and a value at each of its times (unix seconds)."""

    labels: Mapping[str, str]
    times: tuple[float, ...]
    values: tuple[float, ...]

    def name(self, legend: str) -> str:
        """The legend with `{{label}}` filled in.

        >>> Series({"code": "stale"}, (), ()).name("{{code}} refused")
        'stale refused'
        """
        for label, value in self.labels.items():
            legend = legend.replace(f"{{{{{label}}}}}", value)
        return legend


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """A Prometheus and the stretch of time that is looked at.

    url: its address, for example http://localhost:9090. task: a name, or a regular expression of names.
    end_s, span_s, step_s: unix seconds, seconds, seconds. rate_s: the window of rates, at least four scrapes.
    """

    url: str
    task: str
    end_s: float
    span_s: float
    step_s: float
    rate_s: float

    def ask(self, expr: str) -> list[Series]:
        """The series of one expression of a dashboard, its variables filled in; without values that are not finite.

        Raises:  ConfigError: Prometheus refuses the expression, or something else answers at the address.
                 BusError: nothing answers.
        """
        filled = expr.replace(RATE, f"{self.rate_s:g}s").replace(TASK, self.task)
        asked = {"query": filled, "start": self.end_s - self.span_s, "end": self.end_s, "step": self.step_s}
        answer = self._post("/api/v1/query_range", asked)
        if answer.get("status") != "success":
            raise ConfigError(f"Prometheus refuses {filled!r}: {answer.get('error', 'without a reason')}")
        return [series for row in answer["data"]["result"] if (series := _series(row)).values]

    def _post(self, path: str, asked: Mapping[str, object]) -> dict[str, Any]:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"--prometheus {self.url!r}: give its address, for example http://localhost:9090")
        request = urllib.request.Request(self.url.rstrip("/") + path, urllib.parse.urlencode(asked).encode())  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply:  # noqa: S310
                data = reply.read()
        except urllib.error.HTTPError as error:
            data = error.read()
        except (OSError, http.client.HTTPException) as error:
            raise BusError(f"no Prometheus answers at {self.url}: {error}; start it, or correct the address") from error
        try:
            answer = json.loads(data)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ConfigError(f"what answers at {self.url} is no Prometheus; correct the address")
        return answer


def _series(row: Mapping[str, Any]) -> Series:
    finite = [(float(at), float(text)) for at, text in row["values"] if text not in {"NaN", "+Inf", "-Inf"}]
    return Series(row["metric"], tuple(at for at, _ in finite), tuple(value for _, value in finite))
