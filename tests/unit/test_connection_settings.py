"""Connection settings: from where they come, what is refused, and that secrets stay secret."""

from pathlib import Path

import pytest

from broker_topics.errors import ConfigError
from broker_topics.settings import ConnectionSettings


def test_the_command_line_beats_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "headwater.toml"
    file.write_text('[connection]\nbootstrap = "file:1"\nclient_id = "file"\ntimeout_s = 5\ntls = true\n')
    environ = {"HEADWATER_CONFIG": str(file), "HEADWATER_BOOTSTRAP": "env:2", "HEADWATER_CLIENT_ID": "env"}
    settings = ConnectionSettings.load(environ, bootstrap="given:3", client_id=None)
    assert (settings.bootstrap, settings.client_id, settings.timeout_s, settings.tls) == ("given:3", "env", 5.0, True)


def test_without_anything_the_broker_is_on_this_machine() -> None:
    settings = ConnectionSettings.load({})
    assert (settings.bootstrap_servers, settings.security_protocol) == (["localhost:9092"], "PLAINTEXT")


@pytest.mark.parametrize(
    ("given", "protocol"),
    [
        ({"tls_ca": "ca.pem"}, "SSL"),
        ({"tls_certificate": "c.pem", "tls_key": "k.pem"}, "SSL"),
        ({"user": "ann", "password": "p"}, "SASL_PLAINTEXT"),
        ({"user": "ann", "password_file": "p", "tls": "true"}, "SASL_SSL"),
    ],
)
def test_what_is_given_decides_how_the_broker_is_spoken_to(given: dict[str, str], protocol: str) -> None:
    assert ConnectionSettings.load({}, **given).security_protocol == protocol


@pytest.mark.parametrize(
    ("given", "mend"),
    [
        ({"bootstrap": "localhost"}, "give host:port"),
        ({"bootstrap": "localhost:99999"}, "give host:port"),
        ({"bootstrap": " , "}, "give host:port"),
        ({"tls_certificate": "c.pem"}, "give both or neither"),
        ({"user": "ann"}, "give both or neither"),
        ({"password": "hunter2"}, "give both or neither"),
        ({"user": "ann", "password": "hunter2", "password_file": "f"}, "not both"),
        ({"timeout_s": "0"}, "between 0 and 3600"),
        ({"timeout_s": "soon"}, "give a number"),
        ({"connect_patience_s": "-1"}, "from 0 to 86400"),
        ({"connect_patience_s": "nan"}, "from 0 to 86400"),
        ({"tls": "maybe"}, "give true or false"),
        ({"pasword": "hunter2"}, "unknown connection setting 'pasword'"),
    ],
)
def test_a_wrong_setting_is_refused_with_the_mend(given: dict[str, str], mend: str) -> None:
    with pytest.raises(ConfigError, match=mend) as caught:
        ConnectionSettings.load({}, **given)
    assert "hunter2" not in str(caught.value)


def test_the_password_is_never_shown() -> None:
    settings = ConnectionSettings(user="ann", password="hunter2")
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in f"{settings}"
    with pytest.raises(ConfigError, match="password is hidden; give text") as caught:
        ConnectionSettings.load({}, user="ann", password=4711)
    assert "4711" not in str(caught.value)


def test_the_password_may_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    settings = ConnectionSettings(user="ann", password_file=str(tmp_path / "password"))
    assert settings.secret() == "hunter2"
    with pytest.raises(ConfigError, match="nowhere cannot be read"):
        ConnectionSettings(user="ann", password_file="nowhere").secret()


def test_a_certificate_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"tls_ca .*ca.pem is no readable PEM"):
        ConnectionSettings(tls_ca=str(tmp_path / "ca.pem")).tls_context()
    with pytest.raises(ConfigError, match=r"tls_ca nowhere.pem is no readable PEM"):
        ConnectionSettings(tls_ca="nowhere.pem").tls_context()
    with pytest.raises(ConfigError, match=r"tls_certificate nowhere.pem and tls_key nowhere.key are no readable"):
        ConnectionSettings(tls_certificate="nowhere.pem", tls_key="nowhere.key").tls_context()


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    file = tmp_path / "headwater.toml"
    file.write_text("[connection")
    with pytest.raises(ConfigError, match=r"headwater.toml cannot be read"):
        ConnectionSettings.load({}, file=file)
    file.write_text('connection = "localhost:9092"')
    with pytest.raises(ConfigError, match="must be a table"):
        ConnectionSettings.load({}, file=file)
