"""The sections of a process's settings: each value with its type, meaning and limits, which the page repeats."""

from dataclasses import dataclass

from broker_topics.errors import ConfigError
from broker_topics.setting import setting
from monitoring.logs import Format, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What a process writes to standard error."""

    level: Level = setting("info", "Lowest level of our own events; libraries are heard from warning on.")
    format: Format = setting("auto", "json, console, or auto: console on a terminal, else json.")


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregatorSettings:
    """The aggregator's process; the rules that it applies are settings of the task."""

    listen_host: str = setting("127.0.0.1", "Address of /metrics and the probes; 0.0.0.0 for all networks.")
    listen_port: int = setting(9464, "Port of /metrics and the probes; 0 takes a free one.", 0, 65535)
    max_heartbeat_age_s: float = setting(
        10.0, "The event loop may stand still this long before /livez fails.", 0.1, 3600
    )
    preload: bool = setting(
        True,
        "Load the compiled loops of the extra fast, if it is installed, before anything else: a second or "
        "two. Off: after the first record, which comes so much sooner; the event loop stumbles over it.",
    )
    cache_dir: str = setting(
        "",
        "Directory in which the newest keyframe is kept for a quicker restart, checked against the chain "
        "before it is used; empty: none.",
    )
    keep_parts_s: float = setting(86_400.0, "Age of a keyframe at which what only older ones need goes.", 0, 31_536_000)
    straggler_places: int = setting(1000, "Devices that are kept in mind for /debug/stragglers.", 1, 1_000_000)
    cohorts: str = setting("", "Cohorts counted by name, with commas between; empty: the first 20 that devices state.")
    fleet_page: bool = setting(
        False,
        "Serve the fleet page at / of the same port, to browsers on this machine alone, whatever listen_host says.",
    )
    fleet_page_hash_ids: bool = setting(
        False,
        "Show devices on the fleet page and at /debug/stragglers beside it by a hash of their ids; its key is drawn at "
        "each start.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSettings:
    """Which of several aggregators of a task leads; without a name there is no election and each serves at once."""

    name: str = setting("", "Kubernetes Lease that decides who leads, one for each task; empty: no election.")
    namespace: str = setting("", "Where the Lease lies; empty: the pod's own namespace.")
    identity: str = setting("", "Name under which this process leads, its alone; empty: the host and a random word.")
    duration_s: int = setting(
        6,
        "A leader not heard for so long is succeeded. It renews six times in that time and ends by itself, "
        "status 75, when it could not for two thirds of it.",
        1,
        3600,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """A device's process; Worker(…) takes the same as arguments."""

    state_dir: str = setting(
        "", "Directory in which each device keeps its state under its own id; empty: the user's, by task."
    )
    torch_threads: int = setting(
        1,
        "Threads that torch trains with, unless OMP_NUM_THREADS or the module says otherwise; 0: torch's "
        "own choice, one a core. Small models are fastest with one, and beside other work several are far slower.",
        0,
        1024,
    )
    backoff_initial_s: float = setting(1.0, "First pause after a failure, before jitter.", 0.01, 3600)
    backoff_max_s: float = setting(300.0, "Longest pause between two attempts.", 0.01, 86_400)
    outbox_max_bytes: int = setting(0, "Size at which the outbox takes no more; 0: what the model needs.", 0, 2**40)
    cohort: str = setting(
        "", "Group that the devices are counted in, such as android-14; for metrics and nothing else."
    )
    outbox_max_age_s: float = setting(
        7 * 86_400.0,
        "An update in doubt that waited longer is discarded and counted; queued work starts over.",
        60,
        365 * 86_400,
    )

    def __post_init__(self) -> None:
        if self.backoff_max_s < self.backoff_initial_s:
            raise ConfigError("worker.backoff_max_s must be at least backoff_initial_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatorSettings:
    """The evaluator's process."""

    min_interval_s: float = setting(
        1.0, "Shortest pause between two evaluations; versions between are skipped.", 0, 86_400
    )
