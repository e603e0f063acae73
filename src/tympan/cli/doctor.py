"""`tympan doctor`: whether this machine could serve with these settings, and what to do where it could not.

Nothing is downloaded but a model's configuration, no weight is read, and nothing is changed.
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

from tympan.cli.settings import add_settings, config_from
from tympan.config import Config
from tympan.deploy.settings import ENGINES_WITHOUT_GPU
from tympan.errors import TympanError

OK, POOR, BAD = "ok", "poor", "bad"
SERVER_MODULES: Final = ("fastapi", "httptools", "picows", "prometheus_client", "jwt", "python_multipart", "uvicorn")
TORCH_MODULES: Final = ("torch", "safetensors", "sentencepiece", "huggingface_hub")
CODECS: Final = ("opus", "vorbis", "mp3", "aac", "flac")
SPARE_FILES: Final = 64  # beside a socket for every stream


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `fix` says what to do, where something is to be done."""

    name: str
    state: str
    text: str
    fix: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML (or TYMPAN_CONFIG)")
    add_settings(parser, sections=("model", "server"))


def run(arguments: argparse.Namespace) -> int:
    findings = examine(config_from(arguments))
    for finding in findings:
        print(f"{finding.state:>4}  {finding.name:<8} {finding.text}")
        if finding.fix:
            print(f"      {'':<8} → {finding.fix}")
    return 1 if any(finding.state == BAD for finding in findings) else 0


def examine(config: Config) -> Sequence[Finding]:
    """Everything, in the order in which it is needed. A check that breaks is a finding, too."""
    checks: list[tuple[str, Callable[[Config], Iterator[Finding]]]] = [
        ("python", _python),
        ("audio", _audio),
        ("server", _server),
        ("model", _model),
        ("device", _device),
        ("port", _port),
        ("files", _files),
        ("keys", _keys),
    ]
    findings: list[Finding] = []
    for name, check in checks:
        try:
            findings += check(config)
        except TympanError as error:
            findings.append(Finding(name, BAD, str(error)))
        except ModuleNotFoundError as error:
            findings.append(Finding(name, BAD, f"the package {error.name} is missing", "pip install it"))
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
        yield Finding("audio", BAD, f"{text}, without {', '.join(missing)}", "pip install --force-reinstall av")
    else:
        yield Finding("audio", OK, f"{text}: {', '.join(CODECS)} and raw samples")


def _decodes(av: object, name: str) -> bool:
    codec: type = av.codec.Codec  # type: ignore[attr-defined]
    try:
        codec(name, "r")
    except ValueError:  # PyAV's error for a codec that it does not know is one
        return False
    return True


def _server(config: Config) -> Iterator[Finding]:
    missing = _missing(SERVER_MODULES)
    if missing:
        yield Finding("server", BAD, f"serving needs {', '.join(missing)}", "pip install 'tympan[server]'")
        return
    text = f"uvicorn {_version('uvicorn')}, picows {_version('picows')}"
    if _missing(("uvloop",)) and sys.platform != "win32":
        yield Finding("server", POOR, f"{text}, without uvloop", "pip install uvloop: the event loop takes less CPU")
    else:
        yield Finding("server", OK, text)


def _model(config: Config) -> Iterator[Finding]:
    name = config.model.model
    if name == "embedded":
        missing = _missing(("pocketsphinx",))
        text = "embedded: a small recognizer of English, for trying things out"
        yield Finding("model", BAD if missing else OK, text, "pip install 'tympan[embedded]'" if missing else "")
        return
    if name == "scripted":
        yield Finding("model", POOR, "scripted: it does not listen, and says what its script says")
        return
    missing = _missing(TORCH_MODULES)
    if missing:
        fix = "pip install 'tympan[torch]'; --model embedded does without"
        yield Finding("model", BAD, f"{name} needs {', '.join(missing)}", fix)
        return
    from tympan.models.checkpoints.checkpoint import describe
    from tympan.models.checkpoints.load import open_checkpoint

    model = describe(open_checkpoint(name), codebooks=config.model.codebooks)
    heads = f"{model.pause_heads} pause heads" if model.pause_heads else "turns from energy, it has no pause heads"
    text = f"{model.name}: {model.parameters / 1e6:,.0f} M parameters, {model.delay_seconds:g} s of delay, {heads}"
    yield Finding("model", OK, text)


def _device(config: Config) -> Iterator[Finding]:
    if config.model.model in ENGINES_WITHOUT_GPU or _missing(TORCH_MODULES):
        return
    import torch

    from tympan.engine.kyutai.placement import place

    placement = place(config.model)
    how = f"weights {placement.kind}, cache {placement.cache_name}, torch {torch.__version__}"
    if placement.device.type == "cpu":
        fix = "" if config.model.device == "cpu" else "one stream of the 1B model is near real time on two good cores"
        yield Finding("device", OK if not fix else POOR, f"CPU, {torch.get_num_threads()} threads, {how}", fix)
        return
    card = torch.cuda.get_device_properties(placement.device)
    text = f"{card.name}, {card.total_memory / 2**30:.0f} GiB, compute capability {card.major}.{card.minor}, {how}"
    if _missing(("triton",)):
        yield Finding("device", POOR, f"{text}, without Triton", "pip install triton: attention is much faster with it")
    else:
        yield Finding("device", OK, text)


def _port(config: Config) -> Iterator[Finding]:
    host, port = config.server.bind_host, config.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        fix = "--port with another number, or stop what listens there"
        yield Finding("port", BAD, f"cannot listen on {host} port {port}: {error.strerror}", fix)
        return
    yield Finding("port", OK, f"{host} port {port} is free")


def _files(config: Config) -> Iterator[Finding]:
    if sys.platform == "win32":
        return
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    streams = max(0, most - SPARE_FILES)
    wanted = config.model.max_streams or 0
    text = f"{most} open files: sockets for {streams} streams"
    if streams < wanted:
        yield Finding("files", BAD, f"{text}, and {wanted} are to be let in", f"ulimit -n {wanted + SPARE_FILES}")
    else:
        yield Finding("files", OK, text)


def _keys(config: Config) -> Iterator[Finding]:
    server = config.server
    if server.asks_for_keys:
        from tympan.server.access.auth import Keyring

        file = server.api_keys_file
        keyring = Keyring(server.api_keys, file=Path(file) if file else None, limits=config.keys)
        yield Finding("keys", OK, f"{len(keyring.accounts)} API keys{f', with those in {file}' if file else ''}")
    elif server.bind_host in ("127.0.0.1", "::1", "localhost"):
        yield Finding("keys", OK, "no API keys; only this machine can connect")
    else:
        text = f"no API keys, and {server.bind_host} can be reached from outside"
        yield Finding("keys", POOR, text, "TYMPAN_API_KEYS, unless something in front of the server asks for keys")


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
