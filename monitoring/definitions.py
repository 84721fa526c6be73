"""How one metric is declared: once, as a class attribute that is typed, described and listed on the reference page."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar, overload

from prometheus_client import CollectorRegistry, Counter, Gauge, Info
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from broker_topics.errors import InvariantError
from monitoring.histogram import Histogram

PREFIX = "headwater_"

M = TypeVar("M", bound=MetricWrapperBase)
T_co = TypeVar("T_co", covariant=True)


class Registry(CollectorRegistry):
    """A registry without `_created` samples, which would nearly double the number of series.

    common: labels that every sample carries, such as the task.
    """

    def __init__(self, common: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._common = dict(common or {})

    def collect(self) -> Iterable[Metric]:
        """Every metric with its samples."""
        for metric in super().collect():
            metric.samples = [
                sample._replace(labels={**self._common, **sample.labels})
                for sample in metric.samples
                if not sample.name.endswith("_created")
            ]
            yield metric

    def restricted_registry(self, names: Iterable[str]) -> Any:
        """Only the samples of these names, as `?name[]=` asks for."""
        return _Chosen(self, frozenset(names))


@dataclass(frozen=True, slots=True)
class _Chosen:
    registry: Registry
    names: frozenset[str]

    def collect(self) -> Iterable[Metric]:
        for metric in self.registry.collect():
            metric.samples = [sample for sample in metric.samples if sample.name in self.names]
            if metric.samples:
                yield metric


class Family(Generic[M]):
    """One metric with one bounded label: every value it may take has its series from the start.

    An unlisted value is a bug, never a new series: a fleet of any size leaves the number of series alone. Where values
    are only known at run time, whoever admits them bounds them first.
    """

    __slots__ = ("_children", "_metric", "label")

    def __init__(self, metric: M, label: str, values: Iterable[str]) -> None:
        self.label = label
        self._metric = metric
        self._children: dict[str, M] = {}
        for value in values:
            self.admit(str(value))

    def admit(self, value: str) -> None:
        """Let a value have its series from now on."""
        self._children[value] = self._metric.labels(value)

    def values(self) -> tuple[str, ...]:
        """Every label value that has a series now."""
        return tuple(self._children)

    def labels(self, **label: str | int) -> M:
        """The series of one value, as in `labels(code=RejectCode.STALE)`; InvariantError for an unlisted one."""
        try:
            return self._children[str(label[self.label])]
        except KeyError:
            allowed = ", ".join(self._children)
            raise InvariantError(f"metric label {label}: {self.label} must be one of {allowed}") from None


@dataclass(frozen=True, kw_only=True)
class Definition(Generic[T_co]):
    """One metric: what it is called, what it counts in, what it means and how many series it has.

    `name` carries the prefix and is taken from the class attribute. `failures_of` names the counter of attempts
    that a counter of failures is to be divided by. `initial` is what a gauge says before it is known. `admitted` is how
    many label values at most may join `values` at run time.
    """

    kind: type[MetricWrapperBase]
    unit: str
    help: str
    label: str | None = None
    values: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    failures_of: str | None = None
    initial: float = 0.0
    admitted: int = 0
    name: str = field(default="", init=False)

    def __set_name__(self, owner: type, attribute: str) -> None:
        object.__setattr__(self, "name", PREFIX + attribute)

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T_co: ...
    def __get__(self, instance: object | None, owner: type) -> Any:
        # An instance holds the built metric under the same name, which Python finds before it asks here.
        return self

    @property
    def series(self) -> int:
        """How many time series this metric has at most; always this many where no label value joins at run time."""
        each = len(self.buckets) + 3 if self.kind is Histogram else 1
        return each * (len(self.values) + self.admitted if self.label else 1)

    def build(self, registry: CollectorRegistry) -> MetricWrapperBase | Family[Any]:
        """A new metric in `registry`, all its series at their first value."""
        # An info metric is given without the suffix that the exposition appends.
        name = self.name.removesuffix("_info") if self.kind is Info else self.name
        options: Mapping[str, Any] = {"buckets": self.buckets} if self.kind is Histogram else {}
        metric = self.kind(name, self.help, [self.label] if self.label else [], registry=registry, **options)
        if isinstance(metric, Gauge) and self.initial != 0.0:
            metric.set(self.initial)
        return Family(metric, self.label, self.values) if self.label else metric


def counter(help_: str, *, unit: str, failures_of: str | None = None) -> Definition[Counter]:
    """A count that only grows; its name ends in `_total`."""
    return Definition(kind=Counter, unit=unit, help=help_, failures_of=failures_of)


def counters(
    help_: str, *, unit: str, label: str, values: Iterable[str], failures_of: str | None = None, admitted: int = 0
) -> Definition[Family[Counter]]:
    """Counts by one bounded label."""
    return Definition(
        kind=Counter,
        unit=unit,
        help=help_,
        label=label,
        values=_texts(values),
        failures_of=failures_of,
        admitted=admitted,
    )


def gauge(help_: str, *, unit: str, initial: float = 0.0) -> Definition[Gauge]:
    """A value that goes up and down; `initial` NaN means not known yet."""
    return Definition(kind=Gauge, unit=unit, help=help_, initial=initial)


def gauges(help_: str, *, unit: str, label: str, values: Iterable[str], admitted: int = 0) -> Definition[Family[Gauge]]:
    """Values by one bounded label."""
    return Definition(kind=Gauge, unit=unit, help=help_, label=label, values=_texts(values), admitted=admitted)


def histogram(help_: str, *, unit: str, buckets: tuple[float, ...]) -> Definition[Histogram]:
    """How often a value fell into which bucket; `buckets` are upper bounds, the infinite one is added."""
    return Definition(kind=Histogram, unit=unit, help=help_, buckets=buckets)


def histograms(
    help_: str, *, unit: str, buckets: tuple[float, ...], label: str, values: Iterable[str]
) -> Definition[Family[Histogram]]:
    """Histograms by one bounded label."""
    return Definition(kind=Histogram, unit=unit, help=help_, buckets=buckets, label=label, values=_texts(values))


def info(help_: str) -> Definition[Info]:
    """Facts about this process as labels of a series that is always 1."""
    return Definition(kind=Info, unit="1", help=help_)


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(str(value) for value in values)
