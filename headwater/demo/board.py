"""What the processes of a run say of themselves, beside what is in the log."""

import time
from dataclasses import dataclass, field

from headwater.demo.snapshot import Activity, Span


@dataclass(slots=True)
class Board:
    """Activities of the devices and sentences for a watcher; begins with the first training of all."""

    begun_s: float
    training: bool = False
    spans: list[Span] = field(default_factory=list)
    happenings: list[str] = field(default_factory=list)
    _now: dict[str, tuple[Activity, float]] = field(default_factory=dict)

    def tell(self, device: str, activity: Activity, at_s: float) -> None:
        """A device does something else from now on; the first training of all begins the run."""
        if activity == "training" and not self.training:
            self.begun_s, self.training = at_s, True
        known = self._now.get(device)
        if known is not None:
            self.spans.append(self._span(device, *known, at_s))
        self._now[device] = (activity, at_s)

    def begun_ms(self) -> float:
        """When the first device began to train, milliseconds since 1970; until then when the run was prepared."""
        return self.begun_s * 1000

    def activity(self, device: str) -> Activity:
        """What a device does at the moment."""
        return self._now[device][0] if device in self._now else "waiting"

    def all_spans(self) -> tuple[Span, ...]:
        """The finished stretches and those that go on."""
        open_ones = (self._span(device, *known, time.time()) for device, known in self._now.items())
        return (*self.spans, *open_ones)

    def happened(self, sentence: str) -> None:
        """Something that a watcher should notice."""
        self.happenings.append(sentence)

    def _span(self, device: str, activity: Activity, since_s: float, until_s: float) -> Span:
        start_s, end_s = max(0.0, since_s - self.begun_s), max(0.0, until_s - self.begun_s)
        return Span(device=device, activity=activity, start_s=start_s, end_s=end_s)
