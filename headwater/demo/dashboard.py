"""The dashboard's panels, each a function of the snapshot alone."""

from collections.abc import Sequence

from rich.console import Console, ConsoleDimensions, ConsoleOptions, Group, RenderableType, RenderResult
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from headwater.demo.snapshot import Activity, Device, Role, RoleState, Snapshot
from headwater.demo.text_plot import bar, clock, curve, human_bytes, staleness_buckets

ACTIVITY_STYLE: dict[Activity, str] = {"training": "green", "waiting": "cyan", "offline": "dim"}
STATE_STYLE: dict[RoleState, str] = {"running": "green", "starting": "yellow", "down": "red", "finished": "dim"}
HEADER_ROWS = 3
FOOT_ROWS = 7
ROLES_IN_A_COLUMN = 4
DEVICE_TABLE_FRAME_ROWS = 3
NARROWEST_FOR_DEVICES = 80
DEVICES_COLUMNS = 47
NARROWEST_FOR_BARS = 112
DEVICES_COLUMNS_WITH_BARS = 62


def dashboard(snapshot: Snapshot, size: ConsoleDimensions) -> RenderableType:
    """The whole picture for a terminal of `size`; what does not fit is left out, the slowest devices last."""
    left = Layout(name="left")
    left.split_column(
        Layout(accuracy_panel(snapshot), name="accuracy", ratio=3),
        Layout(staleness_panel(snapshot), name="staleness", ratio=2),
    )
    body: Layout = left
    if size.width >= NARROWEST_FOR_DEVICES:
        rows = max(1, size.height - HEADER_ROWS - FOOT_ROWS - DEVICE_TABLE_FRAME_ROWS)
        bars = size.width >= NARROWEST_FOR_BARS
        columns = DEVICES_COLUMNS_WITH_BARS if bars else DEVICES_COLUMNS
        body = Layout(name="body")
        body.split_row(left, Layout(devices_panel(snapshot, rows, bars=bars), name="devices", size=columns))
    root = Layout(name="root")
    root.split_column(
        Layout(header(snapshot), name="header", size=HEADER_ROWS),
        body,
        Layout(foot(snapshot), name="foot", size=FOOT_ROWS),
    )
    return root


def header(snapshot: Snapshot) -> Panel:
    """Who, where, how far."""
    line = Text.assemble(
        ("Headwater", "bold"),
        f" {clock(snapshot.elapsed_s)}" if snapshot.begun else " starting",
        "   version ",
        (str(snapshot.model_version), "bold"),
        "   updates ",
        (str(snapshot.updates_accepted), "bold"),
        f" ({snapshot.updates_per_s:.1f}/s)   task {snapshot.task} on {snapshot.broker}",
        overflow="ellipsis",
        no_wrap=True,
    )
    return Panel(line, border_style="blue")


def accuracy_panel(snapshot: Snapshot) -> Panel:
    """The held-out accuracy over time, the target as a line of its own."""
    return Panel(_AccuracyCurve(snapshot), title=_accuracy_title(snapshot), border_style="blue")


def _accuracy_title(snapshot: Snapshot) -> Text:
    reached = snapshot.seconds_to_target
    value = f"{snapshot.accuracy:.1%}" if snapshot.evaluations else "none yet"
    goal = f"target {snapshot.target:.0%}"
    goal += f" reached: {clock(reached)}" if reached is not None else ""
    return Text.assemble("Held-out accuracy ", (value, "bold green"), f", {goal}")


class _AccuracyCurve:
    """Fills whatever room the panel has."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = max(2, (options.height or 8) - 1)
        width = max(8, options.max_width - 6)
        points = [(each.at_s, each.accuracy) for each in self._snapshot.evaluations]
        x_max = max(30.0, self._snapshot.elapsed_s)
        target_row = round((1.0 - self._snapshot.target) * (height - 1))
        for row, line in enumerate(curve(points, width=width, height=height, x_max=x_max)):
            label = _axis_label(row, height, target_row, self._snapshot.target)
            style = "green"
            drawn = line
            if row == target_row:
                drawn = line.replace(chr(0x2800), "╌")
                style = "yellow"
            yield Text.assemble((f"{label:>5} ", "dim"), (drawn, style), no_wrap=True)
        end = f"{clock(x_max)} min"
        yield Text(" " * 6 + "0:00" + end.rjust(width - 4), style="dim", no_wrap=True)


def _axis_label(row: int, height: int, target_row: int, target: float) -> str:
    if row == target_row:
        return f"{target:.0%}"
    labels = {0: "100%", height // 2: "50%", height - 1: "0%"}
    return labels.get(row, "") if abs(row - target_row) != 0 else ""


def staleness_panel(snapshot: Snapshot) -> Panel:
    """How many versions behind the accepted updates were, and what the bytes came to."""
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(ratio=1, no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    buckets = staleness_buckets(snapshot.staleness)
    most = max((count for _, count in buckets), default=0)
    for name, count in buckets if snapshot.staleness else []:
        table.add_row(name, Text(bar(count / most, 30), style="magenta"), str(count))
    sent = Text.assemble(
        (f"{snapshot.compression:.0f}×", "bold green"),
        " less sent than float32: ",
        (human_bytes(snapshot.uplink_bytes), "bold"),
        f", not {human_bytes(snapshot.uplink_bytes_float32)}",
        no_wrap=True,
        overflow="ellipsis",
    )
    received = Text(f"received by all devices: {human_bytes(snapshot.downlink_bytes)}", style="dim", no_wrap=True)
    title = f"Staleness in versions: median {snapshot.staleness_p50}, max {snapshot.staleness_max}"
    return Panel(Group(sent, received, table), title=title, border_style="blue")


def devices_panel(snapshot: Snapshot, rows: int, *, bars: bool) -> Panel:
    """The slowest devices first: each one's part of the updates, against its part of the data."""
    table = Table(box=None, padding=(0, 0, 0, 1), pad_edge=False, header_style="dim")
    table.add_column("device", no_wrap=True, min_width=14)
    table.add_column("trains", justify="right", no_wrap=True, min_width=6)
    if bars:
        table.add_column("", no_wrap=True, min_width=10)
    table.add_column("updates", justify="right", no_wrap=True, min_width=5)
    table.add_column("data", justify="right", no_wrap=True, min_width=4)
    if bars:
        table.add_column("τ", justify="right", no_wrap=True, min_width=3)
    table.add_column("now", no_wrap=True, min_width=8)
    devices = sorted(snapshot.devices, key=lambda device: (-device.period_s, device.name))
    largest = max((snapshot.update_share(device) for device in devices), default=0.0)
    for device in devices[:rows]:
        table.add_row(*_device_row(snapshot, device, largest, bars=bars))
    return Panel(table, title="Slowest devices first", border_style="blue")


def _device_row(snapshot: Snapshot, device: Device, largest: float, *, bars: bool) -> list[Text | str]:
    share = snapshot.update_share(device)
    row: list[Text | str] = [device.name, f"{device.period_s:.1f} s"]
    if bars:
        row.append(Text(bar(share / largest if largest else 0.0, 10), style="cyan"))
    row += [Text(f"{share:.1%}", style="cyan"), f"{snapshot.data_share(device):.1%}"]
    if bars:
        row.append(f"{device.mean_staleness:.0f}")
    return [*row, Text(device.activity, style=ACTIVITY_STYLE[device.activity])]


def foot(snapshot: Snapshot) -> Panel:
    """The processes, the invitation, and what happened to them."""
    columns = Table.grid(padding=(0, 3), expand=True)
    cells = [
        _roles_text(snapshot.roles[first : first + ROLES_IN_A_COLUMN])
        for first in range(0, len(snapshot.roles), ROLES_IN_A_COLUMN)
    ]
    for cell in cells:
        columns.add_column(no_wrap=True, width=max(len(line) for line in cell.plain.split("\n")))
    columns.add_column(ratio=1, no_wrap=True)
    newest = snapshot.happenings[-ROLES_IN_A_COLUMN:]
    notes = Group(*(Text(line, overflow="ellipsis", no_wrap=True) for line in newest))
    columns.add_row(*cells, notes)
    watch = f"in a browser: {snapshot.page_url}" if snapshot.page_url else None
    shown = Group(columns, invitation(snapshot))
    return Panel(shown, title="Processes", subtitle=watch, border_style="blue", height=FOOT_ROWS)


def _roles_text(roles: Sequence[Role]) -> Text:
    """A line for each role: name, state, process id, how often it was started again."""
    text = Text("\n").join(
        Text.assemble(
            f"{role.name:<10} ",
            (f"{role.state:<8}", STATE_STYLE[role.state]),
            f" {role.pid or '–':>7}",
            (f" again {role.restarts}×" if role.restarts else "", "yellow"),
        )
        for role in roles
    )
    text.no_wrap = True
    return text


def invitation(snapshot: Snapshot) -> Text:
    """How to try that nothing gets lost."""
    aggregator = snapshot.role("aggregator")
    if aggregator is None or aggregator.pid is None:
        return Text("The aggregator is being started; the devices train on.", style="yellow", no_wrap=True)
    command = (f"kill -9 {aggregator.pid}", "bold reverse")
    return Text.assemble("Try it: ", command, "  The aggregator comes back, and nothing is lost.", no_wrap=True)
