"""Memory, bandwidth and price of GPUs. Prices change: verify them before relying on them.

Prices are Modal's, in US dollars per second, as public repositories quoted <https://modal.com/pricing> between July and
October 2026. Memory and bandwidth are from the manufacturers' data sheets; of several variants, the smaller one. The T4
is not listed because it does not support bfloat16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tympan.config import DeploySettings

PRICES_AS_OF: Final = "2026-10"
PRICES_SOURCE: Final = "modal.com/pricing, as quoted by public repositories from July to October 2026"
CPU_CORE_DOLLARS_PER_SECOND: Final = 0.0000131
MEMORY_GIB_DOLLARS_PER_SECOND: Final = 0.00000222


@dataclass(frozen=True, slots=True)
class Gpu:
    """One type of card: memory in bytes, bandwidth in bytes per second, price in dollars per second."""

    name: str
    memory_bytes: float
    bandwidth: float
    dollars_per_second: float


GPUS: Final = {
    gpu.name: gpu
    for gpu in (
        Gpu("L4", 24e9, 300e9, 0.000222),
        Gpu("A10", 24e9, 600e9, 0.000306),
        Gpu("L40S", 48e9, 864e9, 0.000542),
        Gpu("A100-40GB", 40e9, 1555e9, 0.000583),
        Gpu("A100-80GB", 80e9, 1935e9, 0.000694),
        Gpu("RTX-PRO-6000", 96e9, 1597e9, 0.000842),
        Gpu("H100", 80e9, 3350e9, 0.001097),
        Gpu("H200", 141e9, 4800e9, 0.001261),
        Gpu("B200", 180e9, 7700e9, 0.001736),
    )
}


def container_dollars_per_second(gpu: Gpu, settings: DeploySettings) -> float:
    """Return the price of a container's GPU, cores and memory, without a surcharge for a region."""
    cores = settings.container_cpu * CPU_CORE_DOLLARS_PER_SECOND
    memory = settings.container_memory_mib / 1024 * MEMORY_GIB_DOLLARS_PER_SECOND
    return gpu.dollars_per_second + cores + memory
