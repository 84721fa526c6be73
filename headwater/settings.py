"""Settings of a process: read once, from the environment and a TOML file, checked at once, passed down.

What devices and aggregator must agree on is not here: those are the settings of the task, kept in the chain.
"""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from broker_topics.errors import ConfigError
from broker_topics.settings import ENVIRONMENT, ConnectionSettings
from headwater.sections import AggregatorSettings, EvaluatorSettings, LeaseSettings, LogSettings, WorkerSettings
from monitoring.logs import REDACTED

PREFIX = "HEADWATER_"
CONFIG_VARIABLE = "HEADWATER_CONFIG"
SECRETS = frozenset({("connection", "password")})
"""(section, name) of every setting that is never shown."""

# Kubernetes tells each pod of a service named headwater-… where it is, in variables that begin like ours.
_SERVICE_LINK = re.compile(
    r".*_(SERVICE_HOST=.*|SERVICE_PORT(_.*)?=.*|PORT=\w+://.*|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=.*)"
)


class _Sections(BaseSettings):
    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_prefix=PREFIX, env_nested_delimiter="_", env_nested_max_split=1
    )
    file_values: ClassVar[Mapping[str, Any]] = {}

    log: LogSettings = LogSettings()
    aggregator: AggregatorSettings = AggregatorSettings()
    lease: LeaseSettings = LeaseSettings()
    worker: WorkerSettings = WorkerSettings()
    evaluator: EvaluatorSettings = EvaluatorSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line, then environment, then file, then defaults."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, dict(cls.file_values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a process is told from outside, one section each."""

    connection: ConnectionSettings
    log: LogSettings
    aggregator: AggregatorSettings
    lease: LeaseSettings
    worker: WorkerSettings
    evaluator: EvaluatorSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting as the configuration page and `headwater config` see it; `limits` may be empty."""

    section: str
    name: str
    variable: str
    default: object
    limits: str
    help: str


def load(*, file: str | Path | None = None, given: Mapping[str, Mapping[str, object]] | None = None) -> Settings:
    """Read the settings of this process.

    Args:    file: TOML file; default: what HEADWATER_CONFIG names, else none.
             given: section → name → value from a command line, which beat the environment, which beats the file;
             None counts as not given.
    Raises:  ConfigError: a file that cannot be read, an unknown name (with the nearest known one), a value of the
             wrong kind or out of range (with where to mend it).
    """
    path = file or os.environ.get(CONFIG_VARIABLE) or None
    content = _read(Path(path)) if path else {}
    _refuse_unknown_names(content, f"settings file {path}")
    _refuse_unknown_variables(os.environ)
    chosen = {
        section: {name: value for name, value in values.items() if value is not None}
        for section, values in (given or {}).items()
    }
    _refuse_unknown_names(chosen, "the command line")
    connection = ConnectionSettings.load(os.environ, file=path, **chosen.pop("connection", {}))
    from_file = {section: values for section, values in content.items() if section != "connection"}
    reader = type("_SectionsAndFile", (_Sections,), {"file_values": from_file, "__module__": __name__})
    try:
        sections = reader(**chosen)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from error
    except SettingsError as error:
        raise ConfigError(f"the environment cannot be read: {error}; set one variable for each setting") from error
    return Settings(
        connection=connection,
        log=sections.log,
        aggregator=sections.aggregator,
        lease=sections.lease,
        worker=sections.worker,
        evaluator=sections.evaluator,
    )


def known_settings() -> Iterator[Setting]:
    """Every setting there is, section by section."""
    for known in fields(ConnectionSettings):
        yield Setting(
            section="connection",
            name=known.name,
            variable=ENVIRONMENT[known.name],
            default=known.default,
            limits="",
            help=known.metadata["help"],
        )
    for section, field in _Sections.model_fields.items():
        for name, info in type(field.default).model_fields.items():
            yield Setting(
                section=section,
                name=name,
                variable=f"{PREFIX}{section}_{name}".upper(),
                default=info.default,
                limits=_limits(info.metadata),
                help=info.description or "",
            )


def print_config(settings: Settings) -> str:
    """The settings as a TOML file that `load` reads again; secrets are hidden in comments.

    >>> from dataclasses import replace
    >>> secured = ConnectionSettings(user="ann", password="hunter2")
    >>> settings = Settings(connection=secured, log=LogSettings(), aggregator=AggregatorSettings(),
    ...                     lease=LeaseSettings(), worker=WorkerSettings(), evaluator=EvaluatorSettings())
    >>> [line for line in print_config(settings).splitlines() if "password" in line]
    ['# password = "***"', 'password_file = ""']
    """
    lines, section = list[str](), ""
    for known in known_settings():
        if known.section != section:
            lines += [f"[{known.section}]"] if not section else ["", f"[{known.section}]"]
            section = known.section
        value = getattr(getattr(settings, section), known.name)
        if (section, known.name) in SECRETS and value:
            lines.append(f'# {known.name} = "{REDACTED}"')
        else:
            lines.append(f"{known.name} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"settings file {path} cannot be read: {error}") from error
    for section, values in content.items():
        if not isinstance(values, dict):
            raise ConfigError(f"settings file {path}: {section!r} stands in no section; sections are {_sections()}")
    return content


def _sections() -> str:
    return ", ".join(f"[{section}]" for section in dict.fromkeys(known.section for known in known_settings()))


def _refuse_unknown_names(content: Mapping[str, Mapping[str, object]], where: str) -> None:
    known: dict[str, list[str]] = {}
    for setting in known_settings():
        known.setdefault(setting.section, []).append(setting.name)
    for section, values in content.items():
        if section not in known:
            raise ConfigError(f"{where}: unknown section [{section}]; {_nearest(section, known)}")
        for name in values:
            if name not in known[section]:
                raise ConfigError(f"{where}: unknown setting {section}.{name}; {_nearest(name, known[section])}")


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    """Refuse a variable of one of our sections that does not exist, and one that is nearly one of ours.

    Others that begin with HEADWATER_ may serve something else on the machine and are let be.
    """
    known = [setting.variable for setting in known_settings()]
    prefixes = tuple(f"{PREFIX}{section}_".upper() for section in _Sections.model_fields)
    for name, value in sorted(environ.items()):
        if not name.startswith(PREFIX) or name in {*known, CONFIG_VARIABLE}:
            continue
        if _SERVICE_LINK.fullmatch(f"{name}={value}"):
            continue
        if name.startswith(prefixes) or difflib.get_close_matches(name, known, 1, 0.9):
            raise ConfigError(f"environment: unknown variable {name}; {_nearest(name, known)}")


def _nearest(name: str, known: Mapping[str, object] | list[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _explain(error: ValidationError) -> str:
    reasons = []
    for fault in error.errors(include_url=False):
        place = ".".join(str(step) for step in fault["loc"])
        variable = f"{PREFIX}{place.replace('.', '_')}".upper()
        reasons.append(f"{place} = {fault['input']!r}: {fault['msg']} (setting {place}, variable {variable})")
    return "; ".join(reasons)


def _limits(metadata: list[Any]) -> str:
    low = next((rule.ge for rule in metadata if hasattr(rule, "ge")), None)
    high = next((rule.le for rule in metadata if hasattr(rule, "le")), None)
    return "" if low is None or high is None else f"{low} to {high}"
