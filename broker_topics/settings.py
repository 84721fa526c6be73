"""How to reach the broker: address, certificates and password, from the environment or a TOML file."""

import ssl
import tomllib
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any, Self

from broker_topics.errors import ConfigError
from broker_topics.setting import convert, setting

ENVIRONMENT = {
    "bootstrap": "HEADWATER_BOOTSTRAP",
    "tls": "HEADWATER_TLS",
    "tls_ca": "HEADWATER_TLS_CA",
    "tls_certificate": "HEADWATER_TLS_CERTIFICATE",
    "tls_key": "HEADWATER_TLS_KEY",
    "user": "HEADWATER_USER",
    "password": "HEADWATER_PASSWORD",
    "password_file": "HEADWATER_PASSWORD_FILE",
    "client_id": "HEADWATER_CLIENT_ID",
    "timeout_s": "HEADWATER_TIMEOUT_S",
    "connect_patience_s": "HEADWATER_CONNECT_PATIENCE_S",
}
"""Setting → environment variable; `HEADWATER_CONFIG` names the TOML file, whose table is `[connection]`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """Where the broker is and who we are; the same for every kind of Kafka client."""

    bootstrap: str = setting("localhost:9092", "Address of the broker, host:port; several separated by commas.")
    tls: bool = setting(False, "Encrypt with TLS; on by itself once one of the tls_… files is given.")
    tls_ca: str = setting("", "PEM file of the authority that signed the broker's certificate; default: the system's.")
    tls_certificate: str = setting("", "PEM file of this client's own certificate, for mutual TLS.")
    tls_key: str = setting("", "PEM file of the key of tls_certificate.")
    user: str = setting("", "User name for SCRAM-SHA-512.")
    password: str = setting("", "Password of the user.", shown=False)
    password_file: str = setting("", "File that holds the password, instead of password.")
    client_id: str = setting("headwater", "What the broker's logs and quotas call this process.")
    timeout_s: float = setting(30.0, "Seconds that one operation may take before it counts as failed or in doubt.")
    connect_patience_s: float = setting(
        30.0,
        "Seconds that an aggregator or evaluator waits at its start for a broker that is away, before it ends with 69. "
        "Devices wait for ever, other commands not at all; a wrong password or certificate ends everybody at once.",
    )

    def __post_init__(self) -> None:
        if not self.bootstrap_servers or not all(_is_address(server) for server in self.bootstrap_servers):
            raise ConfigError(f"bootstrap {self.bootstrap!r}: give host:port, several separated by commas")
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ConfigError("a client certificate needs its key and the key its certificate; give both or neither")
        if self.password and self.password_file:
            raise ConfigError("give the password or the file that holds it, not both")
        if bool(self.user) != bool(self.password or self.password_file):
            raise ConfigError("user and password belong together; give both or neither")
        if not 0 < self.timeout_s <= 3600:
            raise ConfigError(f"timeout_s is {self.timeout_s}; give seconds between 0 and 3600")
        if not 0 <= self.connect_patience_s <= 86_400:
            raise ConfigError(f"connect_patience_s is {self.connect_patience_s}; give seconds from 0 to 86400")

    @property
    def bootstrap_servers(self) -> list[str]:
        """The addresses, one by one."""
        return [server.strip() for server in self.bootstrap.split(",") if server.strip()]

    @property
    def encrypted(self) -> bool:
        """Whether TLS is spoken."""
        return self.tls or bool(self.tls_ca or self.tls_certificate)

    @property
    def security_protocol(self) -> str:
        """Kafka's name for the combination of TLS and password."""
        return {
            (False, False): "PLAINTEXT",
            (True, False): "SSL",
            (False, True): "SASL_PLAINTEXT",
            (True, True): "SASL_SSL",
        }[self.encrypted, bool(self.user)]

    def secret(self) -> str:
        """The password; raises ConfigError where its file cannot be read."""
        if not self.password_file:
            return self.password
        try:
            return Path(self.password_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"password_file {self.password_file} cannot be read: {error}") from error

    def tls_context(self) -> ssl.SSLContext | None:
        """Certificates ready for use, None without TLS; raises ConfigError naming the file that is wrong."""
        if not self.encrypted:
            return None
        try:
            context = ssl.create_default_context(cafile=self.tls_ca or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"tls_ca {self.tls_ca} is no readable PEM certificate: {error}") from error
        if self.tls_certificate:
            try:
                context.load_cert_chain(self.tls_certificate, self.tls_key)
            except (OSError, ssl.SSLError) as error:
                pair = f"tls_certificate {self.tls_certificate} and tls_key {self.tls_key}"
                raise ConfigError(f"{pair} are no readable PEM pair: {error}") from error
        return context

    @classmethod
    def load(cls, environ: Mapping[str, str], *, file: str | Path | None = None, **given: object) -> Self:
        """Settings from `given`, else the environment, else the TOML file, else the defaults.

        Args:    environ: usually `os.environ`. file: default what `HEADWATER_CONFIG` names.
                 given: from a command line; None counts as not given.
        Raises:  ConfigError: an unknown name in the file, a value of the wrong kind, a file that cannot be read.
        """
        path = file or environ.get("HEADWATER_CONFIG")
        values: dict[str, Any] = _read_table(Path(path)) if path else {}
        values |= {name: environ[variable] for name, variable in ENVIRONMENT.items() if environ.get(variable)}
        values |= {
            name: str(value) if isinstance(value, Path) else value for name, value in given.items() if value is not None
        }
        known = {f.name: f for f in fields(cls)}
        if strange := sorted(set(values) - set(known)):
            raise ConfigError(f"unknown connection setting {strange[0]!r}; known are {', '.join(known)}")
        return cls(**{name: _convert(name, known[name], value) for name, value in values.items()})


def _is_address(server: str) -> bool:
    host, _, port = server.rpartition(":")
    return bool(host) and port.isdigit() and 0 < int(port) < 65536


def _read_table(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"settings file {path} cannot be read: {error}") from error
    table = content.get("connection", {})
    if not isinstance(table, dict):
        raise ConfigError(f"settings file {path}: [connection] must be a table")
    return table


def _convert(name: str, known: Field[Any], value: object) -> Any:
    try:
        return convert(known, value)
    except ValueError as error:
        shown = "hidden" if name == "password" else repr(value)
        raise ConfigError(f"{name} is {shown}; give {error}") from None
