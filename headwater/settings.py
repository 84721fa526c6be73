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
from typing import Any, cast

from broker_topics.errors import ConfigError
from broker_topics.setting import convert, limits
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a process is told from outside, one section each."""

    connection: ConnectionSettings
    log: LogSettings
    aggregator: AggregatorSettings
    lease: LeaseSettings
    worker: WorkerSettings
    evaluator: EvaluatorSettings


SECTIONS: Mapping[str, type[Any]] = {known.name: cast(type[Any], known.type) for known in fields(Settings)}
"""Section → the settings in it, in the order of the configuration page."""


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
    sections = {
        section: _read_section(section, kind, chosen.get(section, {}), content.get(section, {}))
        for section, kind in SECTIONS.items()
        if kind is not ConnectionSettings
    }
    return Settings(connection=connection, **sections)


def known_settings() -> Iterator[Setting]:
    """Every setting there is, section by section."""
    for section, kind in SECTIONS.items():
        for known in fields(kind):
            yield Setting(
                section=section,
                name=known.name,
                variable=_variable(section, known.name),
                default=known.default,
                limits=limits(known),
                help=known.metadata["help"],
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
    whole = [f"{PREFIX}{section}".upper() for section in SECTIONS]
    prefixes = tuple(f"{section}_" for section in whole)
    for name, value in sorted(environ.items()):
        if not name.startswith(PREFIX) or name in {*known, CONFIG_VARIABLE}:
            continue
        if name in whole:
            raise ConfigError(f"environment: {name} is a whole section; set one variable for each setting")
        if _SERVICE_LINK.fullmatch(f"{name}={value}"):
            continue
        if name.startswith(prefixes) or difflib.get_close_matches(name, known, 1, 0.9):
            raise ConfigError(f"environment: unknown variable {name}; {_nearest(name, known)}")


def _nearest(name: str, known: Mapping[str, object] | list[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _variable(section: str, name: str) -> str:
    return ENVIRONMENT[name] if section == "connection" else f"{PREFIX}{section}_{name}".upper()


def _read_section(section: str, kind: type[Any], given: Mapping[str, object], from_file: Mapping[str, object]) -> Any:
    """One section's values: command line, then environment, then file, then defaults."""
    values, faults = dict[str, object](), list[str]()
    for known in fields(kind):
        variable = _variable(section, known.name)
        sources = ((given, known.name), (os.environ, variable), (from_file, known.name))
        for value in (source[name] for source, name in sources if name in source):
            try:
                values[known.name] = convert(known, value)
            except ValueError as error:
                faults.append(f"{section}.{known.name} = {value!r}: give {error} (variable {variable})")
            break
    if faults:
        raise ConfigError("; ".join(faults))
    return kind(**values)
