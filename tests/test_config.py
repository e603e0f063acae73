"""Settings: three sources, one set of names, nothing misspelt goes unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tympan.config import Config, ignored_variables, load_config, settings
from tympan.errors import ConfigError
from tympan.settings.expected import expected_text


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_precedence(tmp_path: Path) -> None:
    file = write(tmp_path / "t.toml", "[server]\nport = 1\nlog_level = 'debug'\n[limits]\nidle_seconds = 1\n")
    config = load_config(file, {"TYMPAN_PORT": "2", "TYMPAN_IDLE_SECONDS": "2.5"}, {"port": "3"})
    assert (config.server.port, config.limits.idle_seconds, config.server.log_level) == (3, 2.5, "debug")


def test_defaults() -> None:
    assert load_config(environment={}) == Config()


def test_names_are_unique() -> None:
    names = [setting.name for setting in settings()]
    assert len(names) == len(set(names))
    assert all(setting.description for setting in settings())


def test_lists() -> None:
    assert load_config(environment={"TYMPAN_API_KEYS": "a,b"}).server.api_keys == ("a", "b")
    assert load_config(environment={}, overrides={"api_keys": "a,b"}).server.api_keys == ("a", "b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[servr]\nport = 1", "unknown section [servr] in FILE; did you mean server?"),
        ("[xyz]\nport = 1", "unknown section [xyz] in FILE; the sections are: model, server, "),
        ("[server]\nprot = 1", "unknown setting 'prot' under [server] in FILE; did you mean port?"),
        ("[server]\nidle_second = 1", "under [server] in FILE; did you mean idle_seconds?"),
        ("[server]\nidle_seconds = 1", "under [server] in FILE; it belongs under [limits]"),
        ("[server]\nxyz = 1", "under [server] in FILE; the settings are: host, port, api_keys, "),
        ("port = 1", "unknown section [port]"),
        ("server = 1", "'server' in"),
        ("[server", "is not TOML"),
        (
            "[server]\nport = 70000",
            "invalid port 70000 under [server] in FILE: expected a whole number from 0 to 65535",
        ),
        ("[server]\nport = 'x'", "invalid port 'x' under [server] in FILE: expected a whole number from 0 to 65535"),
        ("[limits]\nidle_seconds = 0", "invalid idle_seconds 0 under [limits] in FILE: expected a number above 0"),
        ("[server]\napi_keys = [1]", "invalid api_keys under [server] in FILE: expected a list of texts"),
    ],
)
def test_invalid_file(tmp_path: Path, text: str, expected: str) -> None:
    file = write(tmp_path / "t.toml", text)
    with pytest.raises(ConfigError) as caught:
        load_config(file, {})
    assert expected in str(caught.value).replace(str(file), "FILE")


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match=r"unknown environment variable TYMPAN_PROT; did you mean TYMPAN_PORT\?"):
        load_config(environment={"TYMPAN_PROT": "1"})
    with pytest.raises(ConfigError, match="unknown environment variable TYMPAN_X; the variables are: TYMPAN_MODEL, "):
        load_config(environment={"TYMPAN_X": "1"})
    with pytest.raises(ConfigError, match=r"unknown setting 'idle_second'; did you mean idle_seconds\?"):
        load_config(environment={}, overrides={"idle_second": "1"})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("device", "gpu", "'gpu': expected auto, cpu, cuda or mps"),
        ("dtype", "bf32", "'bf32': expected auto, f32, bf16, f16, fp8, int8 or int4; did you mean f32?"),
        ("log_level", "INFOS", "'INFOS': expected debug, info, warning or error; did you mean info?"),
        ("root_path", "stt", "'stt': expected a text that matches ^(/[A-Za-z0-9._~-]+)*$"),
        ("max_streams", "0", "'0': expected a whole number above 0"),
        ("engine_processes", "-1", "'-1': expected a whole number of at least 0"),
        ("turn_end", "1.5", "'1.5': expected a number from 0 to 1"),
        ("strict_model", "maybe", "'maybe': expected true or false"),
    ],
)
def test_invalid_values_of_variables_and_options(name: str, value: str, expected: str) -> None:
    flag = f"--{name.replace('_', '-')}"
    for arguments, label in [
        ({"environment": {f"TYMPAN_{name.upper()}": value}}, f"TYMPAN_{name.upper()}"),
        ({"environment": {}, "overrides": {name: value}, "are_options": True}, flag),
        ({"environment": {}, "overrides": {name: value}}, name),
    ]:
        with pytest.raises(ConfigError) as caught:
            load_config(**arguments)  # type: ignore[arg-type]
        assert str(caught.value) == f"invalid {label} {expected}"


def test_the_last_source_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "t.toml", "[server]\nport = -1\n")
    with pytest.raises(ConfigError, match=r"^invalid TYMPAN_PORT '-2': "):
        load_config(file, {"TYMPAN_PORT": "-2"})


def test_every_setting_says_what_it_expects() -> None:
    texts = {setting.name: expected_text(setting.annotation) for setting in settings()}
    assert texts["api_keys"] == "a list of texts"
    assert texts["memory_snapshot"] == "true or false"
    assert texts["scaledown_window"] == "a whole number from 2 to 3600"
    assert all(text.startswith(("a ", "true or false")) or " or " in text for text in texts.values())


KUBERNETES = {
    "TYMPAN_SERVICE_HOST": "10.0.0.1",
    "TYMPAN_SERVICE_PORT": "8000",
    "TYMPAN_SERVICE_PORT_HTTP": "8000",
    "TYMPAN_PORT": "tcp://10.0.0.1:8000",
    "TYMPAN_PORT_8000_TCP": "tcp://10.0.0.1:8000",
    "TYMPAN_PORT_8000_TCP_PROTO": "tcp",
    "TYMPAN_PORT_8000_TCP_PORT": "8000",
    "TYMPAN_PORT_8000_TCP_ADDR": "10.0.0.1",
    "TYMPAN_API_SERVICE_HOST": "10.0.0.2",
    "TYMPAN_API_SERVICE_PORT": "80",
    "TYMPAN_API_PORT": "tcp://10.0.0.2:80",
    "TYMPAN_API_PORT_80_TCP": "tcp://10.0.0.2:80",
}
"""What Kubernetes sets for the Services `tympan` and `tympan-api`."""


def test_variables_of_kubernetes_services() -> None:
    environment = {**KUBERNETES, "TYMPAN_API_KEYS": "k", "TYMPAN_IDLE_SECONDS": "5"}
    config = load_config(environment=environment)
    assert (config.server.port, config.server.api_keys, config.limits.idle_seconds) == (8000, ("k",), 5)
    assert ignored_variables(environment) == sorted(KUBERNETES)
    assert load_config(environment={**KUBERNETES, "TYMPAN_PORT": "9000"}).server.port == 9000
    for name in ("TYMPAN_SERVICE_NAME", "TYMPAN_API_PORT", "TYMPAN_PORTS", "TYMPAN_PORT_8000"):
        with pytest.raises(ConfigError, match=name):
            load_config(environment={name: "80"})


def test_no_setting_looks_like_a_variable_of_kubernetes() -> None:
    assert ignored_variables({setting.variable: "1" for setting in settings()}) == []


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml"):
        load_config(tmp_path / "nothing.toml", {})


def test_other_variables() -> None:
    assert load_config(environment={"PATH": "/bin", "TYMPAN_CONFIG": "elsewhere.toml", "TYMPAN_TOKEN": "k"}) == Config()


def test_loopback_without_keys() -> None:
    assert load_config(environment={}).server.bind_host == "127.0.0.1"
    assert load_config(environment={"TYMPAN_API_KEYS": "k"}).server.bind_host == "0.0.0.0"
    assert load_config(environment={"TYMPAN_HOST": "10.0.0.1"}).server.bind_host == "10.0.0.1"
