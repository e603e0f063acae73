"""Settings of the model, the turns and the recordings."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class ModelSettings(Struct, frozen=True, kw_only=True):
    """The model, its device and data types, and the number of streams."""

    model: Annotated[
        str,
        Meta(
            description="Name that `tympan models` lists, folder, or org/name[@revision] on the hub. "
            "Names are embedded (Whisper tiny.en on the CPU, English, without a download), whisper:NAME (another "
            "Whisper model: a size such as base, or a repository or folder in the format of CTranslate2), "
            "random:1b|2.6b|tiny (random weights, for sizing), and scripted (fixed words, for tests and load)."
        ),
    ] = "kyutai/stt-1b-en_fr-candle"
    device: Annotated[
        str,
        Meta(
            description="Device: auto, cpu, cuda or mps. auto is cuda if there is such a device, "
            "else cpu; mps is the GPU of an Apple computer, on which the models have not been tested.",
            pattern="^(auto|cpu|cuda|mps)$",
        ),
    ] = "auto"
    dtype: Annotated[
        str,
        Meta(
            description="Data type of the weights: auto, f32, bf16, f16, fp8, int8 or int4. auto is bf16 or f16 on a "
            "GPU and int8 on a CPU; fp8 needs a GPU of compute capability 8.9 or later, int8 and int4 a CPU.",
            pattern="^(auto|f32|bf16|f16|fp8|int8|int4)$",
        ),
    ] = "auto"
    kv_dtype: Annotated[
        str,
        Meta(
            description="KV cache: auto, bf16, f16, f32 or fp8. auto is that of the weights, or, if "
            "these have fewer bits, bf16 on a GPU and f32 on a CPU; fp8 holds twice the streams in the same memory.",
            pattern="^(auto|bf16|f16|f32|fp8)$",
        ),
    ] = "auto"
    temperature: Annotated[
        float, Meta(description="Sampling temperature; 0 always takes the most probable token.", ge=0)
    ] = 0.0
    stall_seconds: Annotated[
        float,
        Meta(
            description="Reset a stream's model state after this many seconds of speech without output, or if its text "
            "repeats itself, and transcribe a finished stream once more if its speech gave no word; 0 disables all.",
            ge=0,
        ),
    ] = 8.0
    engine_processes: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(
            description="Processes that run the model, each on a GPU of its own if there are several; 0 runs it in the "
            "server's process. By default 1, or 0 for the models embedded, scripted and whisper:NAME."
        ),
    ] = None
    max_streams: Annotated[
        Annotated[int, Meta(gt=0)] | None,
        Meta(description="Most streams at once; by default as many as the device carries."),
    ] = None


class TurnSettings(Struct, frozen=True, kw_only=True):
    """Turn detection: hysteresis on the pause probability of the 2 s horizon."""

    turn_end: Annotated[float, Meta(description="Pause probability above which a turn ends.", ge=0, le=1)] = 0.6
    turn_resume: Annotated[float, Meta(description="Pause probability below which a turn continues.", ge=0, le=1)] = 0.4
    turn_holdoff_steps: Annotated[
        int, Meta(description="Frames at the start of a stream whose pause probabilities are ignored.", ge=0)
    ] = 12


class RecordingSettings(Struct, frozen=True, kw_only=True):
    """Recording of streams; disabled without a folder."""

    record_folder: Annotated[
        str | None,
        Meta(
            description="Folder for the audio and events of every stream. Only its owner may have access, and it must "
            "contain a file CONSENT that states who has agreed."
        ),
    ] = None
    record_bytes: Annotated[
        int, Meta(description="Size of the folder in bytes at which recording stops; nothing is deleted.", gt=0)
    ] = 10 * 1024**3
