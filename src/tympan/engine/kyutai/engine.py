"""Kyutai's speech-to-text models behind the engine seam: what to load, where to, and how many streams it carries."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from tympan.config import ModelSettings, cache_folder
from tympan.engine.base import EngineInfo
from tympan.engine.batching.engine import BatchedEngine, Trace
from tympan.engine.batching.startup_timer import StartupTimer
from tympan.engine.kyutai.buckets import bucket_sizes
from tympan.engine.kyutai.calibrate import (
    full_context_step_seconds,
    old_step_seconds,
    remembered,
    streams_in_real_time,
)
from tympan.engine.kyutai.graphs import CudaDevice
from tympan.engine.kyutai.memory import slots_for, streams_that_fit, too_many
from tympan.engine.kyutai.placement import FLOATS, Placement, place, prepare
from tympan.engine.kyutai.program import LoadedModel
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.errors import ConfigError
from tympan.models import kernels
from tympan.models.checkpoints.checkpoint import Checkpoint, describe
from tympan.models.checkpoints.load import open_checkpoint
from tympan.models.checkpoints.randomized import synthetic_voice
from tympan.models.layers.attention import FP8
from tympan.models.layers.fp8 import Fp8Linear, replace_with_fp8
from tympan.models.layers.quantized import linear_for, replace_linears
from tympan.models.lm import LM
from tympan.models.mimi import MimiEncoder
from tympan.transcript.tokenizer import load_tokenizer
from tympan.version import version

logger = logging.getLogger(__name__)

PAUSE_HORIZONS = (0.5, 1.0, 2.0, 3.0)  # of the four pause heads, in their order; by energy where there are none
MOST_STREAMS_ON_CPU = 64
SCALE_FRAMES = 64  # of synthetic voice, to see how large keys and values get


def create_kyutai_engine(
    settings: ModelSettings, trace: Trace | None = None, *, most_streams: int | None = None
) -> BatchedEngine:
    """The engine for `settings.model`; everything heavy happens in its thread, when it is started."""
    source = ModelSource(settings, most_streams)
    return BatchedEngine(
        source.make_runner,
        trace,
        read=source.read,
        stages=source.stages,
        stall_seconds=settings.stall_seconds,
        device_lost=device_lost,
    )


def device_lost() -> bool:
    """Return whether the CUDA context is beyond repair, as after an illegal access: then even waiting for it fails."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


class ModelSource:
    """Makes the runner from the checkpoint's files; once, from memory, if they were `read` before."""

    def __init__(self, settings: ModelSettings, most_streams: int | None = None) -> None:
        self.stages = StartupTimer()
        self._settings = settings
        self._most_streams = most_streams
        self._checkpoint: Checkpoint | None = None

    def read(self) -> None:
        """Raises `ModelError`. No device is asked for: it may not be there yet."""
        with self.stages.timed("read"):
            self._checkpoint = open_checkpoint(self._settings.model).in_memory()

    def make_runner(self) -> KyutaiRunner:
        """As `load_runner`; memory that runs out anywhere is a `ConfigError`, too."""
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is None:
            self.stages.seconds.clear()  # of an earlier thread
        try:
            runner = load_runner(self._settings, self._most_streams, checkpoint, self.stages)
        except (MemoryError, RuntimeError) as error:
            if not ran_out_of_memory(error):
                raise
            raise ConfigError(
                f"the memory does not suffice to start {self._settings.model}; "
                "a smaller --dtype or fewer --max-streams take less"
            ) from None
        logger.info("started: %s", self.stages)
        return runner


def ran_out_of_memory(error: Exception) -> bool:
    """On a CPU torch has no class of its own for that."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def load_runner(
    settings: ModelSettings,
    most_streams: int | None = None,
    checkpoint: Checkpoint | None = None,
    stages: StartupTimer | None = None,
) -> KyutaiRunner:
    """Weights onto the device, then as many slots as were asked for, or as many as it carries, up to `most_streams`.

    Raises `ModelError` for a model that cannot be had, `ConfigError` for a device that is not there or too small.
    """
    stages = stages or StartupTimer()
    checkpoint = checkpoint or open_checkpoint(settings.model)
    placement = place(settings)
    info = describe_engine(checkpoint, placement)
    try:
        model = load_model(checkpoint, placement, settings, stages)
    except torch.OutOfMemoryError:
        raise ConfigError(
            f"the weights of {checkpoint.name} as {placement.kind} do not fit into {info.device}"
        ) from None
    if placement.device.type == "cpu":
        return runner_on_cpu(model, info, settings.max_streams, most_streams or MOST_STREAMS_ON_CPU, stages)
    with stages.timed("state"):
        runner = allocate(model, info, stream_bytes(checkpoint, placement), settings.max_streams, most_streams)
    stages.split("state", "graphs", runner.record_seconds)
    if settings.max_streams is None:
        with stages.timed("calibration"):
            limit_to_real_time(runner, checkpoint, placement, settings)
    return runner


def runner_on_cpu(
    model: LoadedModel, info: EngineInfo, asked: int | None, most_streams: int, stages: StartupTimer
) -> KyutaiRunner:
    """Without graphs; what a step takes is measured either way, because its first runs try what is fastest."""
    if asked is None:
        with stages.timed("calibration"):
            asked = measure_capacity(model, info, most_streams)
        with stages.timed("state"):
            return KyutaiRunner(model, info, asked)
    with stages.timed("state"):
        runner = KyutaiRunner(model, info, asked)
    with stages.timed("warm-up"):
        warm_up(runner)
    return runner


def load_model(
    checkpoint: Checkpoint, placement: Placement, settings: ModelSettings, stages: StartupTimer | None = None
) -> LoadedModel:
    """Weights onto the device. Low-bit models keep embeddings wide; on a CPU they compute in f32."""
    stages = stages or StartupTimer()
    prepare(placement.device)
    with stages.timed("weights"):
        lm = checkpoint.lm(
            device=placement.device,
            dtype=placement.wide,
            temperature=settings.temperature,
        )
    with stages.timed("quantisation"):
        quantize(lm, placement.kind)
    with stages.timed("weights"):
        mimi = checkpoint.mimi(device=placement.device, codebooks=lm.codebooks)
    return LoadedModel(
        mimi=mimi,
        lm=lm,
        tokenizer=load_tokenizer(checkpoint.tokenizer_file(), checkpoint.config.lm.text_card),
        device=placement.device,
        cache_dtype=placement.cache,
        cache_scales=measure_scales(mimi, lm, placement.device) if placement.cache == FP8 else None,
    )


def quantize(lm: LM, kind: str) -> None:
    """Store the large matrices in fewer bits if `kind` is `int8` or `int4` (computing in f32) or `fp8`."""
    if kind == "fp8":
        replace_with_fp8(lm.transformer)
        lm.text_linear = Fp8Linear(lm.text_linear.weight)  # type: ignore[assignment]
    elif kind not in FLOATS:
        replace_linears(lm.transformer, kind)  # type: ignore[arg-type]
        lm.text_linear = linear_for(lm.text_linear.weight, kind)  # type: ignore[arg-type, assignment]
        if lm.pause_linear is not None:
            lm.pause_linear.float()
        lm.compute_dtype = torch.float32


def measure_scales(mimi: MimiEncoder, lm: LM, device: torch.device) -> Tensor:
    """Scales for a cache of 8-bit floats, from a synthetic voice: the same on every start."""
    voice = synthetic_voice(
        SCALE_FRAMES * mimi.frame_samples, mimi.config.sample_rate, torch.Generator().manual_seed(0)
    )
    state, rows = mimi.init_state(1), torch.zeros(1, dtype=torch.int64, device=device)
    frames = voice.view(SCALE_FRAMES, 1, -1).to(device)
    return lm.measure_scales(torch.cat([mimi.encode(frame, state, rows) for frame in frames]))


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
        silence_prefix_seconds=checkpoint.config.silence_prefix_seconds,
        languages=("en",) if "2.6b" in checkpoint.name or checkpoint.name.endswith("-en") else ("en", "fr"),
        notice="Random weights: the words mean nothing." if checkpoint.layout == "random" else "",
    )


def stream_bytes(checkpoint: Checkpoint, placement: Placement) -> int:
    """Memory of one stream."""
    return describe(checkpoint, dtype=placement.cache).stream_bytes


def allocate(
    model: LoadedModel, info: EngineInfo, stream: int, asked: int | None, most_streams: int | None = None
) -> KyutaiRunner:
    """A runner on a GPU with as many slots as were asked for, or as fit, up to `most_streams`.

    Raises `ConfigError` that says what fits.
    """
    torch.cuda.empty_cache()  # what loading left over
    free, _ = torch.cuda.mem_get_info(model.device)
    # Without kernels a step copies the rings of its rows, one layer at a time.
    fit = streams_that_fit(free, stream if kernels.usable(model.device) else stream + stream // 4)
    slots = slots_for(asked, fit if asked or most_streams is None else min(fit, most_streams), info.device, stream)
    try:
        runner = KyutaiRunner(model, info, slots, device=CudaDevice())
    except torch.OutOfMemoryError:
        raise too_many(slots, slots * 9 // 10, info.device, stream) from None
    return runner


def limit_to_real_time(
    runner: KyutaiRunner, checkpoint: Checkpoint, placement: Placement, settings: ModelSettings
) -> None:
    """Of the slots that fit, leave those free that would make steps too slow."""
    key = {
        "gpu": runner.info.device,
        "model": checkpoint.name,
        "architecture": repr(checkpoint.config),
        "weights": placement.kind,
        "cache": placement.cache_name,
        "slots": runner.slots,
        "buckets": bucket_sizes(runner.slots),
        "tympan": version(),
        "torch": torch.__version__,
    }
    times = remembered(cache_folder() / "step-times", key, lambda rows: old_step_seconds(runner, rows))
    streams, seconds = streams_in_real_time(times, runner.slots)
    _log_capacity(streams, seconds, runner.info)
    runner.slots = streams


def measure_capacity(model: LoadedModel, info: EngineInfo, most: int = MOST_STREAMS_ON_CPU) -> int:
    """Streams that a CPU carries in real time, at full context: at least one, no more than `most`."""
    streams, seconds = streams_in_real_time(lambda rows: full_context_step_seconds(model, info, rows), most)
    _log_capacity(streams, seconds, info)
    return streams


def warm_up(runner: KyutaiRunner) -> None:
    """On a CPU the first step of each number of rows tries what is fastest for it: not while somebody speaks."""
    rows = 1
    while rows < 2 * runner.slots:
        old_step_seconds(runner, min(rows, runner.slots))
        rows *= 2


def _log_capacity(streams: int, seconds: float, info: EngineInfo) -> None:
    logger.info("a step of %d streams takes %.0f ms of its 80 ms", streams, 1000 * seconds)
    if seconds > info.frame_seconds:
        logger.warning("one stream takes %.0f ms per 80 ms of audio: slower than real time here", 1000 * seconds)
