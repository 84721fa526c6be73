"""The sections of a process's settings: each value with its type, limits and meaning, which the page repeats."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from monitoring.logs import Format, Level


class Section(BaseModel):
    """What all sections have in common: frozen, and checked by our own rules for unknown names."""

    # Unknown names are refused by our own check, which knows where they come from and what was probably meant.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class LogSettings(Section):
    """What a process writes to standard error."""

    level: Level = Field(
        default="info", description="Lowest level of our own events; libraries are heard from warning on."
    )
    format: Format = Field(default="auto", description="json, console, or auto: console on a terminal, else json.")


class AggregatorSettings(Section):
    """The aggregator's process; the rules that it applies are settings of the task."""

    listen_host: str = Field(
        default="127.0.0.1", description="Address of /metrics and the probes; 0.0.0.0 for all networks."
    )
    listen_port: int = Field(
        default=9464, ge=0, le=65535, description="Port of /metrics and the probes; 0 takes a free one."
    )
    max_heartbeat_age_s: float = Field(
        default=10.0, ge=0.1, le=3600, description="The event loop may stand still this long before /livez fails."
    )
    preload: bool = Field(
        default=True,
        description="Load the compiled loops of the extra fast, if it is installed, before anything else: a second or "
        "two. Off: after the first record, which comes so much sooner; the event loop stumbles over it.",
    )
    cache_dir: str = Field(
        default="",
        description="Directory in which the newest keyframe is kept for a quicker restart, checked against the chain "
        "before it is used; empty: none.",
    )
    keep_parts_s: float = Field(
        default=86_400.0, ge=0, le=31_536_000, description="Age of a keyframe at which what only older ones need goes."
    )
    straggler_places: int = Field(
        default=1000, ge=1, le=1_000_000, description="Devices that are kept in mind for /debug/stragglers."
    )
    cohorts: str = Field(
        default="",
        description="Cohorts counted by name, with commas between; empty: the first 20 that devices state.",
    )
    fleet_page: bool = Field(
        default=False,
        description="Serve the fleet page at / of the same port, to browsers on this machine alone, whatever "
        "listen_host says.",
    )
    fleet_page_hash_ids: bool = Field(
        default=False,
        description="Show devices on the fleet page by a hash of their ids; its key is drawn at each start.",
    )


class LeaseSettings(Section):
    """Which of several aggregators of a task leads; without a name there is no election and each serves at once."""

    name: str = Field(
        default="", description="Kubernetes Lease that decides who leads, one for each task; empty: no election."
    )
    namespace: str = Field(default="", description="Where the Lease lies; empty: the pod's own namespace.")
    identity: str = Field(
        default="",
        description="Name under which this process leads, its alone; empty: the host and a random word.",
    )
    duration_s: int = Field(
        default=6,
        ge=1,
        le=3600,
        description="A leader not heard for so long is succeeded. It renews six times in that time and ends by itself, "
        "status 75, when it could not for two thirds of it.",
    )


class WorkerSettings(Section):
    """A device's process; Worker(…) takes the same as arguments."""

    state_dir: str = Field(
        default="",
        description="Directory in which each device keeps its state under its own id; empty: the user's, by task.",
    )
    torch_threads: int = Field(
        default=1,
        ge=0,
        le=1024,
        description="Threads that torch trains with, unless OMP_NUM_THREADS or the module says otherwise; 0: torch's "
        "own choice, one a core. Small models are fastest with one, and beside other work several are far slower.",
    )
    backoff_initial_s: float = Field(
        default=1.0, ge=0.01, le=3600, description="First pause after a failure, before jitter."
    )
    backoff_max_s: float = Field(default=300.0, ge=0.01, le=86_400, description="Longest pause between two attempts.")
    outbox_max_bytes: int = Field(
        default=0, ge=0, le=2**40, description="Size at which the outbox takes no more; 0: what the model needs."
    )
    cohort: str = Field(
        default="",
        description="Group that the devices are counted in, such as android-14; for metrics and nothing else.",
    )
    outbox_max_age_s: float = Field(
        default=7 * 86_400.0,
        ge=60,
        le=365 * 86_400,
        description="An update in doubt that waited longer is discarded and counted; queued work starts over.",
    )

    @model_validator(mode="after")
    def _pauses_grow(self) -> Self:
        if self.backoff_max_s < self.backoff_initial_s:
            raise ValueError("backoff_max_s must be at least backoff_initial_s")
        return self


class EvaluatorSettings(Section):
    """The evaluator's process."""

    min_interval_s: float = Field(
        default=1.0,
        ge=0,
        le=86_400,
        description="Shortest pause between two evaluations; versions between are skipped.",
    )
