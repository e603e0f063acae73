"""A load's report as HTML or PNG: delays over time and their distribution, flushes and handshakes over time."""

from __future__ import annotations

import base64
import html
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from tympan.bench.load.report import PERCENTS, Figures, headline, milliseconds, table, verdict
from tympan.bench.load.score import Outcome
from tympan.errors import ConfigError, missing_package

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS: Final = (".html", ".png")
BLUE, ORANGE = "#2a6f97", "#c9622b"
MAX_BINS: Final = 120

Series = npt.NDArray[np.float32]


def check_file(file: Path) -> None:
    """Check before the load that the report can be written.

    Raises:
        ConfigError: The format is unknown or the folder is missing.
        MissingPackageError: matplotlib is not installed.
    """
    if file.suffix not in FORMATS:
        raise ConfigError(f"invalid report file {file.name!r}: expected a name that ends in {' or '.join(FORMATS)}")
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"cannot write the report {file}: the folder does not exist")
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_package("a report", error.name, "plot") from None


def write_report(file: Path, result: Figures, outcome: Outcome) -> None:
    """Write an HTML page with the plots embedded, or the plots as PNG, depending on the file's suffix.

    Raises:
        ConfigError: The file cannot be written.
    """
    plots = _draw(result, outcome)
    try:
        file.write_bytes(plots if file.suffix == ".png" else _page(result, plots).encode())
    except OSError as error:
        raise ConfigError(f"cannot write the report {file}: {error.strerror}") from None


def _page(result: Figures, plots: bytes) -> str:
    title = f"{result['streams']} streams of {html.escape(result['model'])}"
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem }}
pre {{ overflow-x: auto; background: #f5f5f5; padding: 1rem }} img {{ width: 100% }}</style>
<h1>{title}</h1>
<pre>{html.escape(table(result))}</pre>
<img alt="delays and connections" src="data:image/png;base64,{base64.b64encode(plots).decode()}">
<details><summary>JSON</summary><pre>{html.escape(json.dumps(result, indent=1))}</pre></details>
</html>
"""


def _draw(result: Figures, outcome: Outcome) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    (words, histogram), (flushes, handshakes) = figure.subplots(2, 2)
    _plot_percentiles(words, outcome.series["added"])
    words.set(title="added delay of words", xlabel="seconds", ylabel="milliseconds", ylim=(0, None))
    _plot_histogram(histogram, outcome.series["added"])
    histogram.set(title="distribution", xlabel="milliseconds", ylabel="words")
    for axes, name, title in ((flushes, "flush", "flush to answer"), (handshakes, "handshake", "handshakes")):
        series = outcome.series[name]
        axes.plot(series[:, 0], 1000 * series[:, 1], ".", color=BLUE, markersize=3)
        axes.set(title=title, xlabel="seconds", ylabel="milliseconds", ylim=(0, None))
    figure.suptitle(f"{headline(result)}\n{verdict(result)}", fontsize=9)
    png = io.BytesIO()
    figure.savefig(png, dpi=120, format="png")
    return png.getvalue()


def _plot_percentiles(axes: Axes, series: Series) -> None:
    """Plot the median and the 99th percentile of each second or longer interval."""
    if not len(series):
        return
    begin, end = float(series[:, 0].min()), float(series[:, 0].max()) + 1e-3
    edges = np.linspace(begin, end, min(MAX_BINS, max(1, int(end - begin))) + 1)
    bins = np.digitize(series[:, 0], edges) - 1
    used = np.unique(bins)
    for percent, colour in ((99, ORANGE), (50, BLUE)):
        values = [milliseconds(series[bins == each, 1], percent) or 0.0 for each in used]
        axes.plot(edges[used], values, color=colour, label=f"p{percent}")
    axes.legend(frameon=False)


def _plot_histogram(axes: Axes, series: Series) -> None:
    if not len(series):
        return
    axes.hist(1000 * series[:, 1], bins=80, color=BLUE, log=True)
    for percent, style in zip(PERCENTS, (":", "--", "-"), strict=True):
        value = milliseconds(series[:, 1], percent) or 0.0
        axes.axvline(value, color=ORANGE, linestyle=style, label=f"p{percent}: {value:.0f} ms")
    axes.legend(frameon=False)
