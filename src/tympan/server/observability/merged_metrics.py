"""One text of metrics for a server of several processes, in Prometheus' text format.

Values are summed, except those of `SHARED`, which each process reports for the whole server. The counters of a front
that was lost stay in the sum, because a counter that falls counts as a restart of the server.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

SHARED: Final = frozenset({"tympan_capacity_streams", "tympan_active_streams", "asr_open_channels"})


class Family:
    """The samples of one metric.

    Attributes:
        name: Name of the metric.
        head: Its lines with help and type.
        samples: Values, by the text before them: the name with its labels.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.head: list[str] = []
        self.samples: dict[str, float] = {}

    @property
    def only_grows(self) -> bool:
        """Whether the values are counts."""
        return any(line.split()[-1] in ("counter", "histogram") for line in self.head if line.startswith("# TYPE"))


def parse(text: str) -> dict[str, Family]:
    """Return the metrics of a text, by name."""
    families: dict[str, Family] = {}
    family = Family("")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            family = families.setdefault(name, Family(name))
        if line.startswith("#"):
            family.head.append(line)
        elif line:
            sample, _, value = line.rpartition(" ")
            family.samples[sample] = float(value)
    return families


def add(total: dict[str, Family], families: Iterable[Family]) -> None:
    """Add metrics to a sum."""
    for family in families:
        summed = total.setdefault(family.name, Family(family.name))
        summed.head = family.head
        is_shared = family.name in SHARED or family.name.endswith("_created")
        for sample, value in family.samples.items():
            before = summed.samples.get(sample, 0.0)
            summed.samples[sample] = max(before, value) if is_shared else before + value


def render(families: Iterable[Family]) -> bytes:
    """Return the text of metrics."""
    lines: list[str] = []
    for family in families:
        lines += family.head
        lines += [f"{sample} {value!r}" for sample, value in family.samples.items()]
    return ("\n".join(lines) + "\n").encode()


class MergedMetrics:
    """The metrics of all processes of a server.

    What was served once never decreases: the last known counts of a process stay in the sum when it ends.
    """

    def __init__(self) -> None:
        self._latest: dict[int, dict[str, Family]] = {}
        self._ended: dict[str, Family] = {}

    def update(self, process: int, text: str) -> None:
        """Keep the metrics of a process."""
        self._latest[process] = parse(text)

    def end(self, process: int) -> None:
        """Keep the counts of a process that has ended."""
        add(self._ended, (family for family in self._latest.pop(process, {}).values() if family.only_grows))

    def render(self) -> bytes:
        """Return the metrics of all processes."""
        total: dict[str, Family] = {}
        for families in self._latest.values():
            add(total, families.values())
        add(total, self._ended.values())
        return render(total.values())
