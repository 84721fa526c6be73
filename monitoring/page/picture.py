"""The picture that the fleet page shows: sampled once a second, with curves over the whole run."""

import hashlib
import json
import secrets
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry

from monitoring.health import Readiness, Stragglers
from monitoring.page.history import History, Series
from monitoring.page.sample import Sample, finite, judge, read, staleness_bars

_PLACES = 720
_RATE_S = 10.0
_SLOWEST = 8
_SCORE = ("timestamp_seconds", "model_version", "accuracy", "loss")


class Picture:
    """Takes samples and tells them as JSON; read by server threads.

    Args:  history: what the observer tells. hash_ids: show devices by a keyed hash whose key dies with the process.
           heartbeat_age_s: seconds since the event loop last ran. started_s: unix seconds.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        history: History,
        *,
        task: str,
        readiness: Readiness,
        heartbeat_age_s: Callable[[], float],
        started_s: float,
        hash_ids: bool = False,
    ) -> None:
        self._registry, self._history, self._readiness = registry, history, readiness
        self._heartbeat_age_s = heartbeat_age_s
        self._key = secrets.token_bytes(16) if hash_ids else None
        self._fixed = {"task": task, "instance": secrets.token_hex(8), "started_s": started_s}
        self._points, self._scores = Series(places=_PLACES), Series(places=_PLACES)
        self._decided: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()
        self._now: dict[str, Any] = {}

    def sample(self, now_s: float) -> bytes:
        """Take one look and remember it; what is new, as JSON."""
        seen = read(self._registry)
        state = self._state(seen, now_s)
        recent = state["staleness"]["recent"] or {}
        point = (
            now_s,
            *finite((state["model"]["version"], state["updates"]["per_s"], recent.get("median"), recent.get("p95"))),
        )
        score = finite(seen.get(f"evaluation_{name}") for name in _SCORE)
        fresh: dict[str, Any] = {"now": state}
        with self._lock:
            self._now = state
            if self._points.add(point):
                fresh["point"] = point
            if score[0] and score[0] != self._last_score_s() and self._scores.add(score):
                fresh["score"] = score
        return _json(fresh)

    def whole(self) -> bytes:
        """Everything that a newcomer must know, as JSON."""
        with self._lock:
            return _json({"now": self._now, "points": self._points.rows, "scores": self._scores.rows})

    def named(self, stragglers: Stragglers) -> Stragglers:
        """The same devices under the names that this page shows."""
        return lambda k: [{**row, "client_id": self._shown(str(row["client_id"]))} for row in stragglers(k)]

    def _last_score_s(self) -> float | None:
        return self._scores.rows[-1][0] if self._scores.rows else None

    def _state(self, seen: Sample, now_s: float) -> dict[str, Any]:
        ready, age_s = self._readiness, self._heartbeat_age_s()
        verdict = judge(seen, started=ready.is_started, reason=ready.reason, heartbeat_age_s=age_s, now_s=now_s)
        links = self._history.links()
        recent = self._history.recent_staleness()
        return {
            **self._fixed,
            "now_s": now_s,
            "verdict": {"level": verdict.level, "word": verdict.word, "sentence": verdict.sentence},
            "passed": links[0]["passed"] if links else None,
            "model": {
                "version": seen.get("model_version"),
                "published_s": seen.get("model_published_timestamp_seconds") or None,
                "height": seen.get("chain_length"),
                "parameters": self._history.parameters,
            },
            "updates": self._updates(seen, now_s),
            "staleness": {
                "recent": dict(zip(("median", "p95", "largest"), recent, strict=True)) if recent else None,
                "bars": staleness_bars(seen),
            },
            "devices": {"active": seen.get("clients_active", "5m"), "slowest": self._slowest(now_s)},
            "log": {
                "lag": seen.total("consumer_lag_records"),
                "headroom_s": seen.get("retention_headroom_seconds"),
                "keyframe_s": seen.get("keyframe_last_success_timestamp_seconds") or None,
                "buffer": seen.get("buffer_updates"),
                "loop_s": round(age_s, 2),
            },
            "chain": links,
        }

    def _updates(self, seen: Sample, now_s: float) -> dict[str, Any]:
        codes = {code: round(count) for code, count in seen.by_label("rejects_total").items() if count}
        applied = round(seen.get("updates_processed_total", "applied") or 0)
        refused = sum(codes.values())
        return {
            "applied": applied,
            "refused": refused,
            "codes": codes,
            "per_s": self._per_s(applied + refused, now_s),
            "bytes": seen.total("update_bytes_sum"),
            "float32_bytes": 4 * self._history.parameters * applied,
        }

    def _per_s(self, decided: int, now_s: float) -> float:
        """Decided updates a second over the last ten seconds."""
        self._decided.append((now_s, decided))
        while now_s - self._decided[0][0] > _RATE_S:
            self._decided.popleft()
        first_s, first = self._decided[0]
        return round((decided - first) / (now_s - first_s), 2) if now_s > first_s else 0.0

    def _slowest(self, now_s: float) -> list[dict[str, object]]:
        return [
            {
                "id": self._shown(name),
                "gap_s": round(device.gap_s, 1) or None,
                "silent_s": round(max(0.0, now_s - device.last_s), 1),
                "staleness": round(device.staleness, 1),
                "updates": device.updates,
                "refused": device.refused,
            }
            for name, device in self._history.slowest(_SLOWEST, now_s)
        ]

    def _shown(self, client_id: str) -> str:
        if self._key is None:
            return client_id
        return "#" + hashlib.blake2b(client_id.encode(), key=self._key, digest_size=4).hexdigest()


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
