"""Kyutai's speech-to-text models behind the engine seam: what to load, where to, and how many streams it carries."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from tympan.config import ModelSettings
from tympan.engine.base import EngineInfo
from tympan.engine.batched import BatchedEngine, Trace
from tympan.engine.calibrate import full_context_step_seconds, streams_in_real_time
from tympan.engine.runner import KyutaiRunner, LoadedModel
from tympan.errors import ConfigError
from tympan.models.checkpoint import Checkpoint
from tympan.models.lm import LM
from tympan.models.load import open_checkpoint
from tympan.models.quantized import linear_for, replace_linears
from tympan.transcript.tokenizer import load_tokenizer

logger = logging.getLogger(__name__)

FLOATS = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
PAUSE_HORIZONS = (0.5, 1.0, 2.0, 3.0)  # of the four pause heads, in their order; by energy where there are none
MOST_STREAMS_ON_CPU = 64


@dataclass(frozen=True)
class Placement:
    """Where the model runs and in what; `kind` is a key of `FLOATS`, `int8` or `int4`."""

    device: torch.device
    kind: str


def create_kyutai_engine(settings: ModelSettings, trace: Trace | None = None) -> BatchedEngine:
    """The engine for `settings.model`; everything heavy happens in its thread, when it is started."""
    return BatchedEngine(lambda: load_runner(settings), trace)


def load_runner(settings: ModelSettings) -> KyutaiRunner:
    """Raises `ModelError` for a model that cannot be had, `ConfigError` for a device that is not there."""
    checkpoint = open_checkpoint(settings.model)
    placement = place(settings)
    model = load_model(checkpoint, placement, settings)
    info = describe_engine(checkpoint, placement)
    slots = settings.max_streams or measure_capacity(model, info)
    return KyutaiRunner(model, info, slots)


def place(settings: ModelSettings) -> Placement:
    """Resolve `auto`. Raises `ConfigError`."""
    cuda = torch.cuda.is_available()
    if settings.device == "cuda" and not cuda:
        raise ConfigError("this machine has no CUDA device that PyTorch can use; use --device cpu")
    device = "cuda" if cuda and settings.device != "cpu" else "cpu"
    if settings.dtype != "auto":
        return Placement(torch.device(device), settings.dtype)
    if device == "cpu":
        return Placement(torch.device(device), "int8")
    return Placement(torch.device(device), "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "f16")


def load_model(checkpoint: Checkpoint, placement: Placement, settings: ModelSettings) -> LoadedModel:
    """Weights onto the device. Low-bit models keep embeddings in bf16 and compute in f32."""
    stored = FLOATS.get(placement.kind, torch.bfloat16)
    lm = checkpoint.lm(
        device=placement.device, dtype=stored, codebooks=settings.codebooks, temperature=settings.temperature
    )
    quantize(lm, placement.kind)
    return LoadedModel(
        mimi=checkpoint.mimi(device=placement.device, codebooks=lm.codebooks),
        lm=lm,
        tokenizer=load_tokenizer(checkpoint.tokenizer_file(), checkpoint.config.lm.text_card),
        device=placement.device,
        cache_dtype=stored,
    )


def quantize(lm: LM, kind: str) -> None:
    """Store the large matrices in 8 or 4 bits if `kind` is `int8` or `int4`; compute in f32."""
    if kind not in FLOATS:
        replace_linears(lm.transformer, kind)  # type: ignore[arg-type]
        lm.text_linear = linear_for(lm.text_linear.weight, kind)  # type: ignore[arg-type, assignment]
        if lm.pause_linear is not None:
            lm.pause_linear.float()
        lm.compute_dtype = torch.float32


def describe_engine(checkpoint: Checkpoint, placement: Placement) -> EngineInfo:
    """The seam's description of a checkpoint."""
    heads = checkpoint.config.lm.pause_heads
    mimi = checkpoint.config.mimi
    is_cuda = placement.device.type == "cuda"
    return EngineInfo(
        model=checkpoint.name,
        engine=f"tympan-{placement.kind}",
        device=torch.cuda.get_device_name(placement.device) if is_cuda else "cpu",
        sample_rate=mimi.sample_rate,
        frame_samples=mimi.frame_samples,
        delay_seconds=checkpoint.config.delay_seconds,
        pause_horizons=PAUSE_HORIZONS,
        turns_from="model" if heads else "energy",
        languages=("en",) if "2.6b" in checkpoint.name or checkpoint.name.endswith("-en") else ("en", "fr"),
        notice="Random weights: the words mean nothing." if checkpoint.layout == "random" else "",
    )


def measure_capacity(model: LoadedModel, info: EngineInfo) -> int:
    """Streams that this machine carries in real time, at full context; at least one."""
    most = MOST_STREAMS_ON_CPU
    streams, seconds = streams_in_real_time(lambda rows: full_context_step_seconds(model, info, rows), most)
    logger.info("a step of %d streams takes %.0f ms of its 80 ms", streams, 1000 * seconds)
    if seconds > info.frame_seconds:
        logger.warning("one stream takes %.0f ms per 80 ms of audio: slower than real time here", 1000 * seconds)
    return streams
