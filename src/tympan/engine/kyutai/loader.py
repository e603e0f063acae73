"""Loading a checkpoint onto a device, up to a runner that is ready to serve."""

from __future__ import annotations

import hashlib
import json
import logging
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from tympan.config import ModelSettings, cache_folder
from tympan.engine.base import EngineInfo
from tympan.engine.batching.startup_timer import StartupTimer
from tympan.engine.kyutai.capacity import allocate, calibrated_runner, limit_to_real_time, stream_bytes, warm_up
from tympan.engine.kyutai.placement import CPU_KINDS, Placement, place, prepare
from tympan.engine.kyutai.program import LoadedModel
from tympan.engine.kyutai.recommendation import stored
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.errors import ConfigError, missing_package
from tympan.models.checkpoints.checkpoint import Checkpoint
from tympan.models.checkpoints.load import open_checkpoint
from tympan.models.checkpoints.randomized import synthetic_voice
from tympan.models.cpu.threads import give_threads_to_pytorch, give_threads_to_sessions
from tympan.models.layers.attention import FP8
from tympan.models.layers.fp8 import Fp8Linear, replace_with_fp8
from tympan.models.lm import LM
from tympan.models.mimi import MimiEncoder
from tympan.transcript.tokenizer import Tokenizer, load_tokenizer
from tympan.version import version

logger = logging.getLogger(__name__)

PAUSE_HORIZONS = (0.5, 1.0, 2.0, 3.0)  # of the four pause heads, in their order; by energy if there are none
MOST_STREAMS_ON_CPU = 64
SCALE_FRAMES = 64  # frames of synthetic voice that the scales of an 8-bit cache are measured on


def load_runner(
    settings: ModelSettings,
    most_streams: int | None = None,
    checkpoint: Checkpoint | None = None,
    timer: StartupTimer | None = None,
) -> KyutaiRunner:
    """Load the weights, then allocate `settings.max_streams` slots, or as many as the device carries.

    Args:
        settings: The model, device and data types.
        most_streams: Limit on the slots if `settings.max_streams` is None.
        checkpoint: The checkpoint of `settings.model` if it is open already.
        timer: Timer for the stages.

    Raises:
        ModelError: The model cannot be loaded.
        ConfigError: The device is missing or too small.
    """
    timer = timer or StartupTimer()
    checkpoint = checkpoint or open_checkpoint(settings.model)
    placement = place(settings)
    info = describe_engine(checkpoint, placement)
    try:
        model = load_model(checkpoint, placement, settings, timer)
    except torch.OutOfMemoryError:
        raise ConfigError(
            f"the weights of {checkpoint.name} as {placement.kind} do not fit into {info.device}"
        ) from None
    if placement.device.type != "cuda":
        measured = stored(checkpoint.config) if placement.device.type == "cpu" else None
        if measured is not None:
            logger.info("%s", measured)
        most = most_streams or MOST_STREAMS_ON_CPU
        return _runner_without_graphs(model, info, repr(checkpoint.config), settings.max_streams, most, timer)
    with timer.timed("state"):
        runner = allocate(model, info, stream_bytes(checkpoint, placement), settings.max_streams, most_streams)
    timer.split("state", "graphs", runner.record_seconds)
    if settings.max_streams is None:
        with timer.timed("calibration"):
            limit_to_real_time(runner, checkpoint, placement)
    return runner


def _runner_without_graphs(
    model: LoadedModel, info: EngineInfo, architecture: str, slots: int | None, most_streams: int, timer: StartupTimer
) -> KyutaiRunner:
    """Return a runner on a CPU or an Apple GPU."""
    if slots is None:
        with timer.timed("calibration"):
            return calibrated_runner(model, info, architecture, most_streams)
    with timer.timed("state"):
        runner = KyutaiRunner(model, info, slots)
    with timer.timed("warm-up"):
        warm_up(runner)
    return runner


def load_model(
    checkpoint: Checkpoint, placement: Placement, settings: ModelSettings, timer: StartupTimer | None = None
) -> LoadedModel:
    """Load the weights onto the device. Low-bit models keep their embeddings in floats and compute in float32."""
    timer = timer or StartupTimer()
    prepare(placement.device)
    give_threads_to_pytorch()
    tokenizer = fetch(checkpoint, timer)
    with timer.timed("weights"):
        lm = checkpoint.lm(device=placement.device, dtype=placement.wide, temperature=settings.temperature)
    with timer.timed("quantisation"):
        quantize(lm, placement.kind, _packed_folder(checkpoint, placement.kind))
    with timer.timed("weights"):
        mimi = checkpoint.mimi(device=placement.device)
        if placement.device.type == "cpu":
            cpu_networks().run_mimi_on_cpu(mimi)
    if placement.device.type == "cpu" and placement.kind in CPU_KINDS:
        give_threads_to_sessions()
    return LoadedModel(
        mimi=mimi,
        lm=lm,
        tokenizer=tokenizer,
        device=placement.device,
        cache_dtype=placement.cache,
        cache_scales=measure_scales(mimi, lm, placement.device) if placement.cache == FP8 else None,
    )


def fetch(checkpoint: Checkpoint, timer: StartupTimer) -> Tokenizer:
    """Check all files and download what is missing, the small ones first; the timer shows the progress.

    Returns:
        The tokenizer.

    Raises:
        ModelError: A file is missing or does not fit the architecture, or the download failed.
    """
    with timer.timed("files"):
        tokenizer = load_tokenizer(checkpoint.tokenizer_file(), checkpoint.config.lm.text_card)
        checkpoint.prepare(timer.report)
    return tokenizer


def quantize(lm: LM, kind: str, folder: Path | None = None) -> None:
    """Store the large matrices as `kind`; `int8`, `int4` and `f32` on a CPU are computed by ONNX Runtime.

    Args:
        lm: The language model.
        kind: Type of the weights.
        folder: Folder of packed weights for later starts; None for none.
    """
    if kind == "fp8":
        replace_with_fp8(lm.transformer)
        lm.text_linear = Fp8Linear(lm.text_linear.weight)  # type: ignore[assignment]
    elif kind in CPU_KINDS and lm.embedding.device.type == "cpu":
        cpu_networks().run_lm_on_cpu(lm, kind, folder)


def _packed_folder(checkpoint: Checkpoint, kind: str) -> Path | None:
    """Return the folder of the packed weights of a checkpoint in files."""
    fingerprint = checkpoint.fingerprint()
    if fingerprint is None:
        return None
    key = json.dumps([fingerprint, kind, version()])
    return cache_folder() / "packed-weights" / hashlib.sha256(key.encode()).hexdigest()[:16]


def cpu_networks() -> ModuleType:
    """Return the module that runs networks with ONNX Runtime.

    Raises:
        MissingPackageError: ONNX Runtime is not installed.
    """
    try:
        return import_module("tympan.models.cpu.networks")
    except ModuleNotFoundError as error:
        raise missing_package("the model on a CPU", error.name, "cpu") from None


def measure_scales(mimi: MimiEncoder, lm: LM, device: torch.device) -> Tensor:
    """Return the scales of an fp8 cache, measured on a synthetic voice that is the same on every start."""
    voice = synthetic_voice(
        SCALE_FRAMES * mimi.frame_samples, mimi.config.sample_rate, torch.Generator().manual_seed(0)
    )
    state, rows = mimi.init_state(1), torch.zeros(1, dtype=torch.int64, device=device)
    frames = voice.view(SCALE_FRAMES, 1, -1).to(device)
    return lm.measure_scales(torch.cat([mimi.encode(frame, state, rows) for frame in frames]))


def describe_engine(checkpoint: Checkpoint, placement: Placement) -> EngineInfo:
    """Return the engine's description of a checkpoint."""
    mimi = checkpoint.config.mimi
    names = {"cpu": "cpu", "mps": "Apple GPU (MPS)"}
    return EngineInfo(
        model=checkpoint.name,
        engine=f"tympan-{placement.kind}",
        device=names.get(placement.device.type) or torch.cuda.get_device_name(placement.device),
        sample_rate=mimi.sample_rate,
        frame_samples=mimi.frame_samples,
        delay_seconds=checkpoint.config.delay_seconds,
        pause_horizons=PAUSE_HORIZONS,
        turns_from="model" if checkpoint.config.lm.pause_heads else "energy",
        silence_prefix_seconds=checkpoint.config.silence_prefix_seconds,
        languages=("en",) if "2.6b" in checkpoint.name or checkpoint.name.endswith("-en") else ("en", "fr"),
        notice="Random weights: the words mean nothing." if checkpoint.layout == "random" else "",
    )
