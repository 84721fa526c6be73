"""The report's pictures: one function each, drawn from the last snapshot of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker_topics.errors import ToolMissingError
from headwater.demo.snapshot import Activity, Device, Evaluation, Snapshot
from headwater.demo.text_plot import clock, human_bytes, staleness_buckets

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart by readers with any colour vision.
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#8A8A8A"
ACTIVITY_COLOURS: dict[Activity, str] = {"training": "#BBD7EA", "waiting": "#F3DDA8", "offline": "#4D4D4D"}
STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.dpi": 150,
}


def write_figures(snapshot: Snapshot, folder: Path) -> list[Path]:
    """Draw every picture into `folder`, which exists; returns the files written.

    Raises:  ToolMissingError: if matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ToolMissingError("the report's pictures need matplotlib; pip install 'headwater[demo]'") from error
    written = []
    with matplotlib.rc_context(STYLE):
        for name, size, draw in (
            ("accuracy_over_time", (9.0, 5.0), _accuracy_over_time),
            ("accuracy_over_bytes", (9.0, 5.0), _accuracy_over_bytes),
            ("staleness", (9.0, 4.5), _staleness),
            ("participation", (9.0, 6.5), _participation),
            ("timeline", (12.0, 7.0), _timeline),
        ):
            # A figure of its own, never pyplot: that would choose a window system.
            figure = Figure(figsize=size, layout="constrained")
            draw(figure, snapshot)
            written.append(folder / f"{name}.png")
            figure.savefig(written[-1])
    return written


def _judged_on(snapshot: Snapshot) -> str:
    return "wearers never seen in training" if snapshot.held_out == "wearers" else "held-out windows"


def _accuracy_over_time(figure: "Figure", snapshot: Snapshot) -> None:
    axes = figure.subplots()
    seconds = [each.at_s for each in snapshot.evaluations]
    _accuracy_axes(axes, snapshot.target, seconds, snapshot.evaluations)
    reached = snapshot.seconds_to_target
    if reached is not None:
        axes.axvline(reached, color=GREEN, linewidth=1.2)
        axes.annotate(
            f"target held after {clock(reached)} min",
            (reached, 0.3),
            (-6, 0),
            textcoords="offset points",
            ha="right",
            color=GREEN,
        )
    axes.xaxis.set_major_formatter(lambda value, _: clock(value))
    axes.set_xlabel("time since the first device began to train (min:s)")
    axes.set_xlim(0, max(snapshot.elapsed_s, 1.0))
    axes.set_title(f"Accuracy on {_judged_on(snapshot)} over time")


def _accuracy_over_bytes(figure: "Figure", snapshot: Snapshot) -> None:
    axes = figure.subplots()
    evaluations = [each for each in snapshot.evaluations if each.uplink_bytes > 0]
    _accuracy_axes(axes, snapshot.target, [float(each.uplink_bytes) for each in evaluations], evaluations)
    if evaluations:
        as_float32 = [each.uplink_bytes * snapshot.compression for each in evaluations]
        values = [each.accuracy for each in evaluations]
        label = "the same updates as float32 (computed)"
        axes.plot(as_float32, values, color=ORANGE, linewidth=2, linestyle=(0, (4, 2)), label=label)
        axes.legend(loc="lower right")
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: human_bytes(value))
    axes.set_xlabel("bytes sent by all devices together (logarithmic)")
    axes.set_title(f"Accuracy over bytes sent: {snapshot.compression:.0f}× below float32")


def _accuracy_axes(axes: "Axes", target: float, x: list[float], evaluations: Sequence[Evaluation]) -> None:
    values = [each.accuracy for each in evaluations]
    axes.plot(x, values, color=BLUE, linewidth=2, marker="o", markersize=3, label="served model")
    axes.axhline(target, color=GREY, linestyle=(0, (2, 2)), linewidth=1.2, label=f"target {target:.0%}")
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_ylabel("accuracy")
    axes.grid(axis="y", color="#E4E4E4")
    axes.legend(loc="lower right")


def _staleness(figure: "Figure", snapshot: Snapshot) -> None:
    axes = figure.subplots()
    buckets = staleness_buckets(snapshot.staleness)
    counts = [count for _, count in buckets]
    bars = axes.bar([name for name, _ in buckets], counts, color=BLUE, width=0.75)
    axes.bar_label(bars, [f"{count:,}" if count else "" for count in counts], padding=2)
    axes.set_xlabel("versions between the model an update started from and the one it was added to")
    axes.set_ylabel("accepted updates")
    axes.set_title(f"Staleness: median {snapshot.staleness_p50} versions, largest {snapshot.staleness_max}")


def _by_speed(snapshot: Snapshot) -> list[Device]:
    """Fastest first: rows of a picture count from the bottom, so the slowest stand at its top."""
    return sorted(snapshot.devices, key=lambda device: (device.period_s, device.name))


def _participation(figure: "Figure", snapshot: Snapshot) -> None:
    axes = figure.subplots()
    devices = _by_speed(snapshot)
    rows = range(len(devices))
    heard = [snapshot.update_share(device) for device in devices]
    holds = [snapshot.data_share(device) for device in devices]
    axes.barh(rows, heard, color=BLUE, height=0.62, label="share of accepted updates")
    axes.scatter(holds, rows, color=VERMILION, marker="D", s=30, zorder=3, label="share of training data")
    axes.set_yticks(rows, [f"{device.name}  ({device.period_s:.1f} s)" for device in devices])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("share of the fleet")
    axes.grid(axis="x", color="#E4E4E4")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=2)
    axes.set_title("Who is heard, by seconds for one training")


def _timeline(figure: "Figure", snapshot: Snapshot) -> None:
    axes = figure.subplots()
    devices = _by_speed(snapshot)
    row_of = {device.name: row for row, device in enumerate(devices)}
    for activity, colour in ACTIVITY_COLOURS.items():
        spans = [span for span in snapshot.spans if span.activity == activity and span.device in row_of]
        if spans:
            axes.barh(
                [row_of[span.device] for span in spans],
                [span.end_s - span.start_s for span in spans],
                left=[span.start_s for span in spans],
                color=colour,
                height=0.7,
                label=activity,
            )
    arrivals = [arrival for arrival in snapshot.arrivals if arrival.device in row_of]
    axes.scatter(
        [arrival.at_s for arrival in arrivals],
        [row_of[arrival.device] for arrival in arrivals],
        marker="|",
        s=36,
        linewidths=0.9,
        color=BLUE,
        zorder=3,
        label="update accepted",
    )
    axes.set_yticks(range(len(devices)), [device.name for device in devices])
    axes.set_ylim(-0.6, len(devices) - 0.4)
    axes.set_xlim(0, max(snapshot.elapsed_s, 1.0))
    axes.xaxis.set_major_formatter(lambda value, _: clock(value))
    axes.set_xlabel("time since the first device began to train (min:s)")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4)
    axes.set_title("What each device did, the slowest at the top")
