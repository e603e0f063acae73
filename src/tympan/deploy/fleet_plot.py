"""A plot of a simulated fleet."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from tympan.deploy.costs import Choice
from tympan.deploy.fleet import FleetResult
from tympan.errors import ConfigError, missing_package

POINTS: Final = 2000
STREAMS_COLOUR: Final = "#2a6f97"
CAPACITY_COLOUR: Final = "#c9622b"


def plot_fleet(result: FleetResult, choice: Choice, title: str, file: Path) -> None:
    """Plot open streams, capacity and containers over time.

    Args:
        result: The simulation.
        choice: The fleet that was simulated.
        title: Title of the plot.
        file: Output file; its suffix selects PNG, SVG or PDF.

    Raises:
        MissingPackageError: matplotlib is not installed.
        ConfigError: The file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise missing_package("a plot", error.name, "plot") from None
    moments = np.linspace(result.times[0], result.times[-1], POINTS)
    index = np.searchsorted(result.times, moments, side="right") - 1
    hours, containers = moments / 3600, result.containers[index]
    figure = Figure(figsize=(10, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.step(hours, containers * choice.container_max_streams, where="post", color=CAPACITY_COLOUR, label="capacity")
    target = containers * choice.container_target_streams
    upper.step(hours, target, where="post", color=CAPACITY_COLOUR, linestyle=":", label="target")
    upper.fill_between(hours, result.open_streams[index], step="post", color=STREAMS_COLOUR, label="open streams")
    upper.set(title=title, ylabel="streams", ylim=(0, None))
    upper.legend(loc="upper left", frameon=False)
    lower.step(hours, containers, where="post", color=CAPACITY_COLOUR)
    lower.set(xlabel="hours", ylabel="containers", ylim=(0, None))
    lower.yaxis.get_major_locator().set_params(integer=True)
    try:
        figure.savefig(file, dpi=120)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot write the plot {file}: {error}") from None
