"""Warnings about audio that its sender should check: silence, clipping, a wrongly declared encoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tympan.audio.format import INTEGER_ENCODINGS, RAW_ENCODINGS
from tympan.audio.samples import as_float
from tympan.messages import AudioFormat, Pcm, Samples, Warning

_SILENT_SECONDS = 5
_SILENCE = 1e-4  # -80 dB, three steps of 16 bits
_CLIPPED_SECONDS = 5
_FULL_SCALE = 0.99
_CLIPPED_SHARE = 0.01
_NOISE_SECONDS = 2
_NOISE_LEVEL = 0.2
_NOISE_CORRELATION = 0.6
_NOISY_SHARE = 0.3
_NOISY_ENERGY = _NOISY_SHARE * _NOISE_LEVEL**2  # mean square of a second; less has too few loud blocks
_BLOCKS = 20
_LARGEST_FLOAT = 8.0
_EVERY_SECOND_UNTIL = 60
_SKIPPED_SECONDS = 9


class _Check(Protocol):
    """Examines one second after the other, whose largest absolute sample is `peak`.

    `done` once it has nothing more to report. The samples are integers where the client sends 16-bit ones at the
    engine's rate: a check converts them only if the peak is not sufficient.
    """

    done: bool

    def __call__(self, second: Pcm, peak: float) -> Warning | None: ...


class AudioChecks:
    """Checks one channel of a stream. Each warning is reported at most once, however the samples are split.

    - `silence`: only digital silence in the first 5 seconds.
    - `clipping`: over 5 seconds, more than 1 % of the samples are at full scale next to another one.
    - `float_as_int`: raw samples that no microphone produces. These are white noise at full scale (bytes of another
      encoding, or a lost byte), or float samples far outside [-1, 1] (integers).

    After the first minute one second in ten is examined.

    Args:
        format: The declared format.
        sample_rate: Rate of the decoded samples in Hz.
    """

    def __init__(self, format: AudioFormat, sample_rate: int) -> None:
        self._rate = sample_rate
        self._parts: list[Pcm] = []
        self._missing = sample_rate
        self._to_skip = 0
        self._seconds = 0
        out_of_range = [] if format.encoding in INTEGER_ENCODINGS else [OutOfRange(format)]
        self._checks: list[_Check] = [Silence(), *out_of_range, Clipping()]
        if format.encoding in RAW_ENCODINGS:
            self._checks.append(Noise(format, sample_rate))

    def push(self, samples: Pcm) -> Sequence[Warning]:
        """Examine decoded samples `[n]`, which are kept for up to a second, and return new warnings."""
        if self._to_skip >= len(samples):
            self._to_skip -= len(samples)
            return ()
        if not self._to_skip and len(samples) < self._missing:
            self._parts.append(samples)
            self._missing -= len(samples)
            return ()
        warnings: list[Warning] = []
        while len(samples):
            if self._to_skip:
                skipped = min(self._to_skip, len(samples))
                self._to_skip -= skipped
                samples = samples[skipped:]
                continue
            taken = samples[: self._missing]
            self._parts.append(taken)
            self._missing -= len(taken)
            if self._missing:
                break
            samples = samples[len(taken) :]
            warnings += self._examine(_joined(self._parts))
            self._parts, self._missing = [], self._rate
            self._seconds += 1
            if self._seconds >= _EVERY_SECOND_UNTIL:
                self._to_skip = _SKIPPED_SECONDS * self._rate
        return warnings

    def _examine(self, second: Pcm) -> list[Warning]:
        warnings: list[Warning] = []
        peak = _peak(second)
        for check in tuple(self._checks):
            warning = check(second, peak)
            if check.done:
                self._checks.remove(check)
            if warning is None:
                continue
            warnings.append(warning)
            if warning.code in ("clipping", "float_as_int"):
                # Such samples give no information about the other faults.
                self._checks.clear()
                break
        return warnings


class Silence:
    """Finds (nearly) digital silence since the start."""

    def __init__(self) -> None:
        self.done = False
        self._seconds = 0

    def __call__(self, second: Pcm, peak: float) -> Warning | None:
        self._seconds += 1
        self.done = peak > _SILENCE or self._seconds == _SILENT_SECONDS
        if peak > _SILENCE or not self.done:
            return None
        return Warning(
            "silence",
            f"the first {_SILENT_SECONDS} seconds are digital silence; is the microphone muted?",
        )


class Clipping:
    """Finds a large share of samples at full scale."""

    def __init__(self) -> None:
        self.done = False
        self._shares: list[float] = []

    def __call__(self, second: Pcm, peak: float) -> Warning | None:
        self._shares = self._shares[1 - _CLIPPED_SECONDS :]
        self._shares.append(self._share(as_float(second)) if peak >= _FULL_SCALE else 0.0)
        share = sum(self._shares) / _CLIPPED_SECONDS
        if share <= _CLIPPED_SHARE:
            return None
        self.done = True
        return Warning(
            "clipping", f"{share:.0%} of the samples are at full scale; reduce the input level, since words are lost"
        )

    @staticmethod
    def _share(second: Samples) -> float:
        # Two in a row: a clipped wave is flat at its top, while noise only touches full scale.
        full = np.abs(second) >= _FULL_SCALE
        return float((full[1:] & full[:-1] & (second[1:] * second[:-1] > 0)).mean())


class OutOfRange:
    """Finds float samples far outside [-1, 1]."""

    def __init__(self, format: AudioFormat) -> None:
        self.done = False
        self._encoding = format.encoding

    def __call__(self, second: Pcm, peak: float) -> Warning | None:
        if peak <= _LARGEST_FLOAT:
            return None
        self.done = True
        return Warning(
            "float_as_int",
            f"{self._encoding} samples reach {peak:.3g}, but audio lies between -1 and 1; "
            "if they are integers, declare s16le or divide them by 32768",
        )


class Noise:
    """Finds white noise at full scale, which is how bytes of another encoding sound."""

    def __init__(self, format: AudioFormat, sample_rate: int) -> None:
        self.done = False
        self._encoding = format.encoding
        # Upsampled noise is white only up to its original rate.
        self._step = -(-sample_rate // format.sample_rate)
        self._noisy_seconds = 0

    def __call__(self, second: Pcm, peak: float) -> Warning | None:
        if peak * peak < _NOISY_ENERGY:
            return None
        samples = as_float(second)
        if np.einsum("i,i->", samples, samples) < _NOISY_ENERGY * len(samples):
            return None  # too quiet for enough loud blocks
        self._noisy_seconds += self._is_noise(samples)
        self.done = self._noisy_seconds == _NOISE_SECONDS
        if not self.done:
            return None
        return Warning(
            "float_as_int",
            f"declared as {self._encoding}, the audio is white noise at full scale; "
            "the bytes are probably float, big-endian or compressed: declare the encoding that is sent",
        )

    def _is_noise(self, second: Samples) -> bool:
        """Return whether loud parts have samples that hardly correlate, unlike speech."""
        samples = second[:: self._step]
        blocks = samples[: len(samples) // _BLOCKS * _BLOCKS].reshape(_BLOCKS, -1)
        length = blocks.shape[1]
        # Sums of products without temporary arrays, which would be larger than the second itself.
        energy = np.einsum("ij,ij->i", blocks, blocks) / length
        correlation = np.einsum("ij,ij->i", blocks[:, 1:], blocks[:, :-1]) / (length - 1)
        noisy = (energy > _NOISE_LEVEL**2) & (np.abs(correlation) < _NOISE_CORRELATION * energy)
        return float(noisy.mean()) > _NOISY_SHARE


def _joined(parts: Sequence[Pcm]) -> Pcm:
    """Return the parts `[n]` as one; float32 if one of them is."""
    if len({part.dtype for part in parts}) > 1:
        parts = [as_float(part) for part in parts]
    return np.concatenate(parts)


def _peak(samples: Pcm) -> float:
    """Return the largest absolute sample, 1 at full scale."""
    peak = max(float(samples.max()), -float(samples.min()))
    return peak / (1 << 15) if samples.dtype == np.int16 else peak
