"""Settings are read once, typed, checked at once, and a misspelt one is named with what was meant."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from broker_topics.errors import ConfigError
from broker_topics.settings import ENVIRONMENT
from headwater.cli import run
from headwater.settings import known_settings, load, print_config


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in known_settings():
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.delenv("HEADWATER_CONFIG", raising=False)


def written(folder: Path, text: str) -> Path:
    path = folder / "headwater.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_anything_given_all_is_at_its_default() -> None:
    settings = load()
    assert settings.connection.bootstrap == "localhost:9092"
    assert settings.aggregator.listen_host == "127.0.0.1"
    assert settings.aggregator.listen_port == 9464
    assert settings.log.level == "info"


def test_the_command_line_beats_the_environment_which_beats_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(
        tmp_path,
        """
        [connection]
        bootstrap = "file:1"
        client_id = "file"
        timeout_s = 5

        [aggregator]
        listen_port = 1
        listen_host = "file"
        straggler_places = 11
        """,
    )
    monkeypatch.setenv("HEADWATER_BOOTSTRAP", "environment:2")
    monkeypatch.setenv("HEADWATER_CLIENT_ID", "environment")
    monkeypatch.setenv("HEADWATER_AGGREGATOR_LISTEN_PORT", "2")
    monkeypatch.setenv("HEADWATER_AGGREGATOR_LISTEN_HOST", "environment")

    settings = load(
        file=file,
        given={
            "connection": {"bootstrap": "given:3", "client_id": None},
            "aggregator": {"listen_port": 3, "listen_host": None},
        },
    )

    assert settings.connection.bootstrap == "given:3"
    assert settings.connection.client_id == "environment"
    assert settings.connection.timeout_s == 5.0
    assert settings.aggregator.listen_port == 3
    assert settings.aggregator.listen_host == "environment"
    assert settings.aggregator.straggler_places == 11


def test_the_environment_may_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_CONFIG", str(written(tmp_path, '[log]\nlevel = "debug"\n')))
    assert load().log.level == "debug"


def test_settings_cannot_be_changed_afterwards() -> None:
    settings = load()
    with pytest.raises(FrozenInstanceError):
        settings.aggregator.listen_port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[aggregator]\nlisten_prot = 1\n", r"unknown setting aggregator\.listen_prot; did you mean listen_port\?"),
        ("[agregator]\nlisten_port = 1\n", r"unknown section \[agregator\]; did you mean aggregator\?"),
        ('[connection]\nbootstrp = "a:1"\n', r"unknown setting connection\.bootstrp; did you mean bootstrap\?"),
        ("[log]\ncolour = 1\n", r"unknown setting log\.colour; known are level, format"),
        ("listen_port = 1\n", r"'listen_port' stands in no section; sections are \[connection\], \[log\]"),
        ("[aggregator\n", "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused_with_the_mend(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        load(file=written(tmp_path, text))
    assert "headwater.toml" in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"settings file .*nowhere\.toml cannot be read: .*No such file"):
        load(file=tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "HEADWATER_AGGREGATOR_LISTEN_PORT",
            "many",
            r"aggregator\.listen_port = 'many': give a whole number from 0 to 65535 .variable HEADWATER_AGGREGATOR_LIS",
        ),
        ("HEADWATER_AGGREGATOR_LISTEN_PORT", "65536", "give a whole number from 0 to 65535"),
        ("HEADWATER_AGGREGATOR_LISTEN_PORT", "", "listen_port = '': give a whole number"),
        ("HEADWATER_AGGREGATOR_PRELOAD", "2", "preload = '2': give true or false"),
        ("HEADWATER_LOG_LEVEL", "loud", "give one of debug, info, warning, error"),
        ("HEADWATER_WORKER_BACKOFF_MAX_S", "inf", "give a number from 0.01 to 86400"),
        ("HEADWATER_WORKER_BACKOFF_MAX_S", "nan", "give a number from 0.01 to 86400"),
        ("HEADWATER_WORKER_BACKOFF_MAX_S", "0.5", "backoff_max_s must be at least backoff_initial_s"),
        ("HEADWATER_LOG", "{", "set one variable for each setting"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=message):
        load()


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("HEADWATER_AGGREGATOR_LISTN_PORT", "HEADWATER_AGGREGATOR_LISTEN_PORT"),
        ("HEADWATER_LOG_LEVELS", "HEADWATER_LOG_LEVEL"),
        ("HEADWATER_BOOTSTRAPS", "HEADWATER_BOOTSTRAP"),
        ("HEADWATER_PASWORD_FILE", "HEADWATER_PASSWORD_FILE"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, meant: str
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ConfigError, match=rf"unknown variable {variable}; did you mean {meant}\?"):
        load()


def test_variables_that_kubernetes_sets_for_services_disturb_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEADWATER", "HEADWATER_AGGREGATOR"):
        monkeypatch.setenv(f"{name}_SERVICE_HOST", "10.0.0.1")
        monkeypatch.setenv(f"{name}_SERVICE_PORT", "9464")
        monkeypatch.setenv(f"{name}_SERVICE_PORT_METRICS", "9464")
        monkeypatch.setenv(f"{name}_PORT", "tcp://10.0.0.1:9464")
        monkeypatch.setenv(f"{name}_PORT_9464_TCP", "tcp://10.0.0.1:9464")
        monkeypatch.setenv(f"{name}_PORT_9464_TCP_ADDR", "10.0.0.1")
    assert load().aggregator.listen_port == 9464


def test_variables_of_others_are_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_SCHOOL_DISTRICT", "1")
    assert load().log.level == "info"


def test_what_is_printed_can_be_read_again_and_hides_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_USER", "ann")
    monkeypatch.setenv("HEADWATER_PASSWORD", "hunter2")
    monkeypatch.setenv("HEADWATER_AGGREGATOR_LISTEN_HOST", 'C:\\"cache" é')
    monkeypatch.setenv("HEADWATER_WORKER_BACKOFF_MAX_S", "12.5")
    first = load()
    text = print_config(first)
    assert "hunter2" not in text
    assert "hunter2" not in repr(first)
    assert '# password = "***"' in text

    for variable in ("HEADWATER_USER", "HEADWATER_AGGREGATOR_LISTEN_HOST", "HEADWATER_WORKER_BACKOFF_MAX_S"):
        monkeypatch.delenv(variable)
    second = load(file=written(tmp_path, text))
    assert second == first


def test_every_setting_has_a_help_line_and_its_unit_ends_its_name() -> None:
    for setting in known_settings():
        assert setting.help.endswith("."), setting.name
        if isinstance(setting.default, float):
            assert setting.name.endswith("_s"), setting.name


def test_every_connection_setting_has_a_variable() -> None:
    assert [s.variable for s in known_settings() if s.section == "connection"] == list(ENVIRONMENT.values())


@pytest.mark.parametrize(
    "setting", [s for s in known_settings() if s.section != "connection"], ids=lambda s: s.variable
)
def test_the_variable_that_the_page_names_is_the_one_that_is_read(
    setting: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headwater.settings import Setting

    assert isinstance(setting, Setting)
    values: dict[type, str] = {str: "there", int: "2000000", float: "61.5", bool: str(not setting.default)}
    value = "error" if setting.name == "level" else "console" if setting.name == "format" else ""
    value = value or (
        "7"
        if setting.name in {"listen_port", "straggler_places", "duration_s", "torch_threads"}
        else values[type(setting.default)]
    )
    monkeypatch.setenv(setting.variable, value)
    read = getattr(getattr(load(), setting.section), setting.name)
    assert str(read) == value
    assert read != setting.default


def test_the_command_prints_what_a_process_would_use_and_hides_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADWATER_USER", "ann")
    monkeypatch.setenv("HEADWATER_PASSWORD", "hunter2")
    monkeypatch.setenv("HEADWATER_AGGREGATOR_LISTEN_PORT", "9999")
    assert run(["config"]) == 0
    shown = capsys.readouterr().out
    assert "listen_port = 9999" in shown
    assert "hunter2" not in shown
