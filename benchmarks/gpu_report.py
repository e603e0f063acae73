"""Write the figures of docs/gpu.md from the results in benchmarks/results: `python benchmarks/gpu_report.py`.

Reads the JSON lines that `gpu_figures.py` writes, and replaces the text between the two comments in that page, and a
plot per GPU and data type in docs/plots. Without a run on a GPU, the page states that nothing has been measured.
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
NOTHING = "**No figure has been measured on a GPU yet.** `python benchmarks/gpu_figures.py` measures all of them."
COLUMNS = {
    "streams": "streams",
    "step ms p50": "step_ms_p50",
    "p95": "step_ms_p95",
    "p99": "step_ms_p99",
    "frame to token ms p50": "frame_to_token_ms_p50",
    "p95 ": "frame_to_token_ms_p95",
    "p99 ": "frame_to_token_ms_p99",
    "flush ms p50": "flush_ms_p50_loaded",
    "p99  ": "flush_ms_p99_loaded",
    "kept up": "kept_up",
}
WIDTH, HEIGHT, MARGIN = 640, 320, 50
BUDGET_MS = 80.0

Run = dict[str, Any]


def read(folder: Path) -> tuple[list[Run], list[str]]:
    """Return the loads on GPUs by number of streams, and the tables of the runs' other figures."""
    runs: list[Run] = []
    tables: list[str] = []
    for file in sorted(folder.glob("gpu-figures-*.jsonl")):
        records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        about = next(record for record in records if record["record"] == "run")
        items = [record for record in records if record["record"] == "item" and "values" in record]
        loads = [item for item in items if "step_ms_p99" in item["values"] and item["values"]["gpu"]]
        if about["quick"] or not loads:
            continue
        moshi: Run = next((item["values"] for item in reversed(items) if "moshi_streams" in item["values"]), {})
        costs = {item["stage"]: item["values"] for item in items if "sustained_streams" in item["values"]}
        for item in loads:
            common = {"date": about["date"], "at_90": item["item"].startswith("90 %"), "moshi": moshi}
            runs.append({**item["values"], **common, "sustained": costs.get(item["stage"], {})})
        title = f"{loads[0]['values']['gpu']}, {about['date']}"
        tables += [agreement(title, items), exactness(items)]
    return sorted(runs, key=lambda run: int(run["streams"])), [table for table in tables if table]


def agreement(title: str, items: Sequence[Run]) -> str:
    """Return the table of how often each data type chooses the token that f32 chooses; empty if it was not measured."""
    rows = [item for item in items if "same_token" in item["values"]]
    if not rows:
        return ""
    frames = next(item["values"]["frames"] for item in items if "frames" in item["values"])
    lines = [
        f"### Token agreement with f32: {title}",
        "",
        f"{frames} frames of a synthetic voice, each data type with the past of f32.",
        "",
        "| weights and cache | same token | relative error of the logits |",
        "|---|---|---|",
    ]
    for row in rows:
        values = row["values"]
        lines.append(f"| {row['item']} | {values['same_token']:.1%} | {values['logits_error']} |")
    return "\n".join(lines)


def exactness(items: Sequence[Run]) -> str:
    """Return the table of streams whose tokens differ between ways to run the same steps in f32."""
    rows = [item for item in items if item["stage"] == "exactness" and "streams_differing" in item["values"]]
    if not rows:
        return ""
    counted = next(item["values"] for item in items if item["stage"] == "exactness" and "tokens" in item["values"])
    lines = [
        f"In f32, {counted['streams']} streams of {counted['tokens']} tokens, some flushed, some with frames again:",
        "",
        "| compared | streams that differ | first at token | logit gap there, by their standard deviation |",
        "|---|---|---|---|",
    ]
    for row in rows:
        values = row["values"]
        gap = values["gap_there"] if values["streams_differing"] else None
        place = shown(values["first_place"])
        lines.append(f"| {row['item']} | {values['streams_differing']} | {place} | {shown(gap)} |")
    return "\n".join(lines)


def groups(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs that differ in their number of streams only, by what they have in common."""
    found: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        found[f"{run['gpu']}, weights {run['weights_dtype']}, cache {run['kv_dtype']}, {run['date']}"].append(run)
    return dict(found)


def facts(runs: Sequence[Run]) -> str:
    """Return the figures of a group that are not in its table."""
    first = runs[0]
    kept = max((int(run["streams"]) for run in runs if run["kept_up"]), default=0)
    share, moshi, sustained = first["attention_copy_rate_share"], first["moshi"], first["sustained"]
    found = [
        f"{first['model']}, {first['context_frames']} frames of context in every stream from its first frame; "
        f"{kept} streams kept up. torch {first['torch']}, driver {first['driver']}, commit `{first['commit']}`.",
        f"One row takes {first['batch1_step_ms']} ms a step; a flush of a stream that is alone takes "
        f"{first['flush_ms_p50_idle']} ms (p50), {first['flush_ms_p99_idle']} ms (p99).",
    ]
    found += [
        f"At 90 % load ({run['streams']} streams) a flush takes {run['flush_ms_p50_loaded']} ms (p50), "
        f"{run['flush_ms_p99_loaded']} ms (p99), of {run['flushes']} flushes."
        for run in runs
        if run["at_90"]
    ]
    found.append(
        f"A stream takes {first['bytes_per_stream'] / 2**20:.1f} MiB as computed, and "
        f"{shown_mib(first['bytes_per_stream_measured'])} as measured, with graphs."
    )
    if share is not None:
        found.append(
            f"Attention of {first['attention_rows']} rows reads {first['attention_gbps']} GB/s, {share:.0%} of the "
            f"rate of a copy ({first['copy_gbps']} GB/s)."
        )
    if "dollars_per_stream_hour" in sustained:
        found.append(
            f"A stream costs ${sustained['dollars_per_stream_hour']:.5f} an hour, at "
            f"${sustained['gpu_dollars_per_hour']} an hour for the GPU ({sustained['prices_as_of']})."
        )
    if moshi:
        compiled = "with its compilation" if moshi["compiled"] else "without its compilation, which failed"
        found.append(
            f"The `moshi` package's loop, {compiled}, carries {moshi['moshi_streams']} streams of the same weights in "
            "the same run."
        )
    return " ".join(found)


def section(title: str, runs: Sequence[Run], plot: str) -> str:
    lines = [
        f"### {title}",
        "",
        facts(runs),
        "",
        "```sh",
        str(runs[0]["command"]),
        "```",
        "",
        "| " + " | ".join(name.strip() for name in COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(shown(run[name]) for name in COLUMNS.values()) + " |" for run in runs),
        "",
        f"![step time by streams](plots/{plot})",
    ]
    return "\n".join(lines)


def shown_mib(size_bytes: int | None) -> str:
    return "–" if size_bytes is None else f"{size_bytes / 2**20:.1f} MiB"


def shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value)


def plot(runs: Sequence[Run]) -> str:
    """Return an SVG of the 99th percentiles of step and frame to token, by the number of streams."""
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
    runs, tables = read(arguments.results)
    sections = []
    for title, group in groups(runs).items():
        name = "".join(each if each.isalnum() else "-" for each in title.lower()) + ".svg"
        folder = arguments.page.parent / "plots"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(plot(group), encoding="utf-8")
        sections.append(section(title, group, name))
    page = arguments.page.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    figures = "\n\n".join([*sections, *tables]) or NOTHING
    arguments.page.write_text(f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
