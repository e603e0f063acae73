"""`tympan doctor`: check whether this machine can serve with these settings, and say what to do if not.

Only the configuration of a model is downloaded; no weights are read, and nothing is changed.
"""

from __future__ import annotations

import argparse
import os
import platform
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from tympan.cli.options import add_settings, config_from
from tympan.config import Config
from tympan.deploy.deployment import ENGINES_WITHOUT_GPU
from tympan.deploy.systemd import check_unit, find_unit
from tympan.engine.embedded.whisper.files import EMBEDDED, PACKAGES, PREFIX, languages_of, locate_model
from tympan.errors import TympanError, install_command

OK, WARNING, ERROR = "ok", "warn", "error"
SERVER_MODULES: Final = ("fastapi", "httptools", "picows", "prometheus_client", "jwt", "python_multipart", "uvicorn")
TORCH_MODULES: Final = ("torch", "safetensors", "sentencepiece", "huggingface_hub")
CPU_MODULES: Final = ("onnx", "onnxruntime")
CODECS: Final = ("opus", "vorbis", "mp3", "aac", "flac")
SPARE_FILES: Final = 64  # in addition to one socket per stream


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check; `fix` says what to do unless the state is ok."""

    name: str
    state: str
    text: str
    fix: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, sections=("model", "server"), config=True)


def run(arguments: argparse.Namespace) -> int:
    findings = examine(config_from(arguments))
    for finding in findings:
        print(f"{finding.state:>5}  {finding.name:<8} {finding.text}")
        if finding.fix:
            print(f"       {'':<8} → {finding.fix}")
    return 1 if any(finding.state == ERROR for finding in findings) else 0


def examine(config: Config) -> Sequence[Finding]:
    """Run all checks; one that fails with an error is a finding, too."""
    checks: list[tuple[str, Callable[[Config], Iterator[Finding]]]] = [
        ("python", _python),
        ("audio", _audio),
        ("server", _server),
        ("model", _model),
        ("device", _device),
        ("port", _port),
        ("files", _files),
        ("keys", _keys),
        ("systemd", _systemd),
    ]
    findings: list[Finding] = []
    for name, check in checks:
        try:
            findings += check(config)
        except TympanError as error:
            findings.append(Finding(name, ERROR, str(error)))
        except ModuleNotFoundError as error:
            findings.append(Finding(name, ERROR, f"the package {error.name} is missing", f"pip install {error.name}"))
    return findings


def _python(config: Config) -> Iterator[Finding]:
    text = f"tympan {_version('tympan')}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    yield Finding("python", OK, f"{text}, {os.cpu_count()} processors")


def _audio(config: Config) -> Iterator[Finding]:
    import av
    import soxr

    missing = [name for name in CODECS if not _decodes(av, name)]
    text = f"PyAV {av.__version__}, soxr {soxr.__version__}"
    if missing:
        yield Finding("audio", ERROR, f"{text}, without {', '.join(missing)}", "pip install --force-reinstall av")
    else:
        yield Finding("audio", OK, f"{text}: {', '.join(CODECS)} and raw samples")


def _decodes(av: object, name: str) -> bool:
    codec: type = av.codec.Codec  # type: ignore[attr-defined]
    try:
        codec(name, "r")
    except ValueError:  # PyAV raises a subclass for an unknown codec
        return False
    return True


def _server(config: Config) -> Iterator[Finding]:
    missing = _missing(SERVER_MODULES)
    if missing:
        yield Finding("server", ERROR, f"serving needs {', '.join(missing)}", f"run {install_command('server')}")
        return
    text = f"uvicorn {_version('uvicorn')}, picows {_version('picows')}"
    if _missing(("uvloop",)) and sys.platform != "win32":
        yield Finding("server", WARNING, f"{text}, without uvloop", "run pip install uvloop to save CPU time")
    else:
        yield Finding("server", OK, text)


def _model(config: Config) -> Iterator[Finding]:
    name = config.model.model
    if name == EMBEDDED or name.startswith(PREFIX):
        yield _whisper(name)
        return
    if name.partition(":")[0] == "scripted":
        yield Finding("model", WARNING, "scripted: fixed words whatever the audio, for tests")
        return
    missing = _missing(TORCH_MODULES)
    if missing:
        fix = f"run {install_command('torch')}, or use --model embedded"
        yield Finding("model", ERROR, f"{name} needs {', '.join(missing)}", fix)
        return
    from tympan.models.checkpoints.checkpoint import describe
    from tympan.models.checkpoints.load import open_checkpoint

    model = describe(open_checkpoint(name))
    heads = f"{model.pause_heads} pause heads" if model.pause_heads else "no pause heads (turns from energy)"
    text = f"{model.name}: {model.parameters / 1e6:,.0f} M parameters, {model.delay_seconds:g} s of delay, {heads}"
    yield Finding("model", OK, f"{text}; tympan verify checks files, words and speed")


def _whisper(model: str) -> Finding:
    if missing := _missing(PACKAGES):
        fix = f"run {install_command('embedded')}"
        return Finding("model", ERROR, f"{model} needs {', '.join(missing)}", fix)
    languages = languages_of(locate_model(model))
    name = f"{model}: Whisper tiny.en" if model == EMBEDDED else model
    return Finding("model", OK, f"{name}, {f'{len(languages)} languages' if len(languages) > 1 else 'English'}")


def _device(config: Config) -> Iterator[Finding]:
    if config.model.model.partition(":")[0] in (*ENGINES_WITHOUT_GPU, "whisper") or _missing(TORCH_MODULES):
        return
    import torch

    from tympan.engine.kyutai.placement import place

    placement = place(config.model)
    types = f"weights {placement.kind}, cache {placement.cache_name}, torch {torch.__version__}"
    if placement.device.type == "cpu":
        yield _cpu(config, f"CPU, {torch.get_num_threads()} threads, {types}", placement.kind)
        return
    if placement.device.type == "mps":
        fix = "no model has been tested on this device: compare its words with those of --device cpu"
        yield Finding("device", WARNING, f"Apple GPU, {types}", fix)
        return
    card = torch.cuda.get_device_properties(placement.device)
    text = f"{card.name}, {card.total_memory / 2**30:.0f} GiB, compute capability {card.major}.{card.minor}, {types}"
    if _missing(("triton",)):
        yield Finding("device", WARNING, f"{text}, without Triton", "run pip install triton for faster attention")
    else:
        yield Finding("device", OK, text)


def _cpu(config: Config, text: str, kind: str) -> Finding:
    """Compare the data type with what `tympan bench engine` recommends for this machine."""
    from tympan.engine.kyutai.recommendation import stored
    from tympan.models.checkpoints.load import open_checkpoint

    if missing := _missing(CPU_MODULES):
        fix = f"run {install_command('cpu')}, or use --model embedded"
        return Finding("device", ERROR, f"{text}; a CPU needs {', '.join(missing)}", fix)
    measured = stored(open_checkpoint(config.model.model).config)
    if measured is None:
        fix = "" if config.model.device == "cpu" else "run tympan bench engine to see which --dtype runs in real time"
        return Finding("device", WARNING if fix else OK, text, fix)
    is_best = kind == measured.recommended
    return Finding("device", OK if is_best else WARNING, f"{text}; {measured}", "" if is_best else "change --dtype")


def _port(config: Config) -> Iterator[Finding]:
    host, port = config.server.bind_host, config.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        fix = "choose another --port, or stop the program that uses it"
        yield Finding("port", ERROR, f"cannot listen on {host} port {port}: {error.strerror}", fix)
        return
    yield Finding("port", OK, f"{host} port {port} is free")


def _files(config: Config) -> Iterator[Finding]:
    if sys.platform == "win32":
        return
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # the server raises its limit to the hard one
    streams = max(0, most - SPARE_FILES)
    wanted = config.model.max_streams or 0
    text = f"{most} open files: sockets for {streams} streams"
    if streams < wanted:
        fix = f"raise the hard limit to {wanted + SPARE_FILES}"
        yield Finding("files", ERROR, f"{text}, but max_streams is {wanted}", fix)
    else:
        yield Finding("files", OK, text)


def _keys(config: Config) -> Iterator[Finding]:
    from tympan.server.access.start_checks import read_token_secret, readable_secrets

    server = config.server
    secret = read_token_secret(server)
    if server.asks_for_keys:
        from tympan.server.access.auth import Keyring

        file = server.api_keys_file
        keyring = Keyring(server.api_keys, secret, Path(file) if file else None, config.keys)
        yield Finding("keys", OK, f"{len(keyring.accounts)} API keys{f', with those in {file}' if file else ''}")
    elif server.bind_host in ("127.0.0.1", "::1", "localhost"):
        yield Finding("keys", OK, "no API keys; only this machine can connect")
    else:
        text = f"no API keys, and {server.bind_host} is reachable from the network"
        yield Finding("keys", WARNING, text, "set TYMPAN_API_KEYS, unless a proxy in front of the server checks keys")
    for text in readable_secrets(server):
        problem, _, fix = text.partition(": ")
        yield Finding("keys", WARNING, problem, fix)


def _systemd(config: Config) -> Iterator[Finding]:
    """Check the installed unit with the settings that it names, which may differ from those of this command."""
    unit = find_unit()
    if unit is None:
        return
    problem = None
    for problem in check_unit(unit):
        yield Finding("systemd", ERROR if problem.is_fatal else WARNING, problem.text, problem.fix)
    if problem is None:
        yield Finding("systemd", OK, f"{unit.file} runs as {unit.user}, and has {unit.stop_seconds:g} s to stop")


def _missing(modules: Sequence[str]) -> list[str]:
    missing = []
    for name in modules:
        try:
            import_module(name)
        except ImportError:
            missing.append(name)
    return missing


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "?"
