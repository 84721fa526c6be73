"""The live view: a dashboard where there is a terminal, a line every few seconds where there is none."""

from types import TracebackType
from typing import IO, Protocol, Self

from rich.console import Console
from rich.live import Live

from headwater.demo.dashboard import dashboard
from headwater.demo.snapshot import Snapshot
from headwater.demo.text_plot import clock, human_bytes

LINE_EVERY_S = 5.0


class View(Protocol):
    """Shows a run while it goes on; a context manager that gives the terminal back as it was."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, snapshot: Snapshot) -> None:
        """Draw the run as it stands; called about twice a second."""


def open_view(console: Console) -> View:
    """The dashboard on a terminal that can draw it, plain lines everywhere else."""
    if console.is_terminal and not console.is_dumb_terminal and console.encoding.startswith("utf"):
        return Dashboard(console)
    return PlainLines(console.file)


class Dashboard:
    """Redraws the whole terminal; the last picture stays on the screen when the run ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop")
        self._last: Snapshot | None = None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        if self._last is not None:
            self._console.print(dashboard(self._last, self._console.size), height=self._console.size.height - 1)

    def show(self, snapshot: Snapshot) -> None:
        """Draw the run as it stands."""
        self._last = snapshot
        self._live.update(dashboard(snapshot, self._console.size), refresh=True)


class PlainLines:
    """One line every five seconds, one for every happening, and the invitation once the aggregator runs."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._next_line_s = 0.0
        self._begun = False
        self._told = 0
        self._invited_pid: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.flush()

    def show(self, snapshot: Snapshot) -> None:
        """Write what is new."""
        for happening in snapshot.happenings[self._told :]:
            self._write(f"[{clock(snapshot.elapsed_s)}] {happening}")
        self._told = len(snapshot.happenings)
        self._invite(snapshot)
        if snapshot.begun and not self._begun:
            self._begun, self._next_line_s = True, 0.0  # the clock begins anew
        if snapshot.elapsed_s >= self._next_line_s:
            self._next_line_s = snapshot.elapsed_s + LINE_EVERY_S
            self._write(plain_line(snapshot))

    def _invite(self, snapshot: Snapshot) -> None:
        aggregator = snapshot.role("aggregator")
        if aggregator and aggregator.state == "running" and aggregator.pid and aggregator.pid != self._invited_pid:
            self._invited_pid = aggregator.pid
            self._write(f"Try it: kill -9 {aggregator.pid} (the aggregator). It is started again and nothing is lost.")

    def _write(self, line: str) -> None:
        print(line, file=self._file, flush=True)


def plain_line(snapshot: Snapshot) -> str:
    """One line that says how the run stands."""
    if not snapshot.begun:
        return f"[{clock(snapshot.elapsed_s)}] processes are starting; the clock begins anew with the first training"
    accuracy = f"{snapshot.accuracy:.1%}" if snapshot.evaluations else "not judged yet"
    offline = sum(device.activity == "offline" for device in snapshot.devices)
    return (
        f"[{clock(snapshot.elapsed_s)}] version {snapshot.model_version}"
        f" · held-out accuracy {accuracy} (target {snapshot.target:.0%})"
        f" · {snapshot.updates_accepted} updates, {snapshot.updates_per_s:.1f}/s, {snapshot.updates_refused} refused"
        f" · staleness median {snapshot.staleness_p50}, max {snapshot.staleness_max}"
        f" · sent {human_bytes(snapshot.uplink_bytes)}, {snapshot.compression:.0f}× below float32"
        f" · {offline} of {len(snapshot.devices)} devices offline"
    )
