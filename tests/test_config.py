"""Settings: three sources, one set of names, nothing misspelt goes unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tympan.config import Config, ignored_variables, load_config, settings
from tympan.errors import ConfigError


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
        ("[servr]\nport = 1", "unknown section [servr]"),
        ("[server]\nprot = 1", "unknown setting 'prot' under [server]"),
        ("port = 1", "unknown section [port]"),
        ("server = 1", "'server' in"),
        ("[server", "is not TOML"),
        ("[server]\nport = 70000", "invalid port: expected"),
        ("[server]\nport = 'x'", "invalid port: expected"),
        ("[limits]\nidle_seconds = 0", "invalid idle_seconds: expected"),
    ],
)
def test_invalid_file(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path / "t.toml", text), {})
    assert expected in str(caught.value)


def test_unknown_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="host, port, api_keys, api_keys_file, token_secret, token_secret_file"):
        load_config(write(tmp_path / "t.toml", "[server]\nprot = 1"), {})
    with pytest.raises(ConfigError, match="TYMPAN_PORT"):
        load_config(environment={"TYMPAN_PROT": "1"})
    with pytest.raises(ConfigError, match="idle_seconds"):
        load_config(environment={}, overrides={"idle_second": "1"})


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
