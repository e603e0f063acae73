"""Makes the figures of docs/gpu.md from the JSON files in benchmarks/results: `python benchmarks/gpu_report.py`.

Rewrites what stands between the two marks in that page, and a plot per GPU and number types in docs/plots. Without a
run on a GPU the page says that nothing has been measured.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- figures: made by benchmarks/gpu_report.py -->", "<!-- end of figures -->"
NOTHING = "**No figure has been measured on a GPU yet.** `python benchmarks/gpu_run.py` measures all of them."
COLUMNS = {
    "streams": "streams",
    "step ms p50": "step_ms_p50",
    "p95": "step_ms_p95",
    "p99": "step_ms_p99",
    "frame to token ms p99": "frame_to_token_ms_p99",
    "flush ms p99": "flush_ms_p99_loaded",
    "kept up": "kept_up",
}
WIDTH, HEIGHT, MARGIN = 640, 320, 50
BUDGET_MS = 80.0

Run = dict[str, Any]


def read(folder: Path) -> list[Run]:
    """The live runs on GPUs, by number of streams."""
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    return sorted((run for run in runs if "step_ms_p99" in run and run["gpu"]), key=lambda run: int(run["streams"]))


def groups(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs that differ in their number of streams only."""
    found: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        found[f"{run['gpu']}, weights {run['weights_dtype']}, cache {run['kv_dtype']}, {run['date']}"].append(run)
    return dict(found)


def section(title: str, runs: Sequence[Run], plot: str) -> str:
    first = runs[0]
    kept = max((int(run["streams"]) for run in runs if run["kept_up"]), default=0)
    share, moshi = first["attention_copy_rate_share"], first.get("moshi_streams")
    facts = [
        f"{first['model']}, {first['context_frames']} frames of context in every stream from its first frame; "
        f"{kept} streams kept up. torch {first['torch']}, driver {first['driver']}, commit `{first['commit']}`.",
        f"One row takes {first['batch1_step_ms']} ms a step; a flush of a stream that is alone "
        f"{first['flush_ms_p99_idle']} ms (p99).",
    ]
    if share is not None:
        facts.append(
            f"Attention of {first['attention_rows']} rows reads {first['attention_gbps']} GB/s, {share:.0%} of the "
            f"rate of a copy ({first['copy_gbps']} GB/s)."
        )
    if moshi is not None:
        facts.append(f"The `moshi` package's loop carries {moshi} streams of the same model in the same run.")
    lines = [
        f"### {title}",
        "",
        " ".join(facts),
        "",
        "```sh",
        str(first["command"]),
        "```",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(shown(run[name]) for name in COLUMNS.values()) + " |" for run in runs),
        "",
        f"![step time by streams](plots/{plot})",
    ]
    return "\n".join(lines)


def shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value)


def plot(runs: Sequence[Run]) -> str:
    """Step and frame-to-token p99 against streams, as an SVG of its own."""
    series = {"step": "step_ms_p99", "frame to token": "frame_to_token_ms_p99"}
    most = max(int(run["streams"]) for run in runs)
    highest = max(BUDGET_MS * 1.25, *(float(run[name]) for run in runs for name in series.values()))

    def at(streams: float, milliseconds: float) -> str:
        x = MARGIN + (WIDTH - 2 * MARGIN) * streams / most
        return f"{x:.1f},{HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * milliseconds / highest:.1f}"

    left, top = at(0, BUDGET_MS).split(",")
    right = at(most, 0).split(",")[0]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<line x1="{left}" y1="{top}" x2="{right}" y2="{top}" stroke="#b00" stroke-dasharray="4"/>',
        f'<text x="{left}" y="{float(top) - 4:.1f}" fill="#b00">80 ms</text>',
        f'<text x="{WIDTH / 2:.0f}" y="{HEIGHT - 12}" text-anchor="middle">streams</text>',
        '<text x="8" y="20">ms, 99th percentile</text>',
    ]
    for (name, field), colour in zip(series.items(), ("#036", "#690"), strict=True):
        points = [at(int(run["streams"]), float(run[field])) for run in runs]
        parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        x, y = points[-1].split(",")
        parts.append(f'<text x="{x}" y="{float(y) - 6:.1f}" text-anchor="end" fill="{colour}">{name}</text>')
        for run, point in zip(runs, points, strict=True):
            x, y = point.split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>')
            if field == "step_ms_p99":
                parts.append(f'<text x="{x}" y="{HEIGHT - MARGIN + 16}" text-anchor="middle">{run["streams"]}</text>')
    return "\n".join([*parts, "</svg>\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "gpu.md")
    arguments = parser.parse_args()
    sections = []
    for title, runs in groups(read(arguments.results)).items():
        name = "".join(each if each.isalnum() else "-" for each in title.lower()) + ".svg"
        folder = arguments.page.parent / "plots"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(plot(runs), encoding="utf-8")
        sections.append(section(title, runs, name))
    page = arguments.page.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    figures = "\n\n".join(sections) or NOTHING
    arguments.page.write_text(f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
