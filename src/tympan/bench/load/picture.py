"""The figures as a page or a picture: delays over time and how they are spread, connections over time."""

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
MOST_BINS: Final = 120

Rows = npt.NDArray[np.float32]


def check_file(file: Path) -> None:
    """Before a run of ten minutes, not after it. Raises `ConfigError` and `MissingPackageError`."""
    if file.suffix not in FORMATS:
        raise ConfigError(f"--report writes {' or '.join(FORMATS)} files, not {file.name!r}")
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"cannot write the report {file}: there is no such folder")
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_package("a report", error.name, "plot") from None


def write_report(file: Path, result: Figures, outcome: Outcome) -> None:
    """HTML (one file, picture included) or PNG, by the file's name. Raises `ConfigError` if it cannot be written."""
    picture = _draw(result, outcome)
    try:
        file.write_bytes(picture if file.suffix == ".png" else _page(result, picture).encode())
    except OSError as error:
        raise ConfigError(f"cannot write the report {file}: {error.strerror}") from None


def _page(result: Figures, picture: bytes) -> str:
    title = f"{result['streams']} streams of {html.escape(result['model'])}"
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem }}
pre {{ overflow-x: auto; background: #f5f5f5; padding: 1rem }} img {{ width: 100% }}</style>
<h1>{title}</h1>
<pre>{html.escape(table(result))}</pre>
<img alt="delays and connections" src="data:image/png;base64,{base64.b64encode(picture).decode()}">
<details><summary>JSON</summary><pre>{html.escape(json.dumps(result, indent=1))}</pre></details>
</html>
"""


def _draw(result: Figures, outcome: Outcome) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    (words, spread), (flushes, handshakes) = figure.subplots(2, 2)
    _over_time(words, outcome.series["added"])
    words.set(title="added to the delay of words", xlabel="seconds", ylabel="milliseconds", ylim=(0, None))
    _spread(spread, outcome.series["added"])
    spread.set(title="how it is spread", xlabel="milliseconds", ylabel="words")
    for axes, name, title in ((flushes, "flush", "flush to answer"), (handshakes, "handshake", "handshakes")):
        rows = outcome.series[name]
        axes.plot(rows[:, 0], 1000 * rows[:, 1], ".", color=BLUE, markersize=3)
        axes.set(title=title, xlabel="seconds", ylabel="milliseconds", ylim=(0, None))
    figure.suptitle(f"{headline(result)}\n{verdict(result)}", fontsize=9)
    memory = io.BytesIO()
    figure.savefig(memory, dpi=120, format="png")
    return memory.getvalue()


def _over_time(axes: Axes, rows: Rows) -> None:
    """Median and 99th percentile of each moment: whether it grows, and when it was bad."""
    if not len(rows):
        return
    begin, end = float(rows[:, 0].min()), float(rows[:, 0].max()) + 1e-3
    edges = np.linspace(begin, end, min(MOST_BINS, max(1, int(end - begin))) + 1)
    places = np.digitize(rows[:, 0], edges) - 1
    shown = np.unique(places)
    for percent, colour in ((99, ORANGE), (50, BLUE)):
        values = [milliseconds(rows[places == place, 1], percent) or 0.0 for place in shown]
        axes.plot(edges[shown], values, color=colour, label=f"p{percent}")
    axes.legend(frameon=False)


def _spread(axes: Axes, rows: Rows) -> None:
    if not len(rows):
        return
    axes.hist(1000 * rows[:, 1], bins=80, color=BLUE, log=True)
    for percent, style in zip(PERCENTS, (":", "--", "-"), strict=True):
        value = milliseconds(rows[:, 1], percent) or 0.0
        axes.axvline(value, color=ORANGE, linestyle=style, label=f"p{percent}: {value:.0f} ms")
    axes.legend(frameon=False)
