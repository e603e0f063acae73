"""Groups of slots whose rings one call reads."""

from __future__ import annotations

import pytest

from tympan.models.cpu.ring import _neighbours


@pytest.mark.parametrize(
    ("slots", "groups"),
    [
        ([3], [[3]]),
        ([0, 1, 2], [[0, 1, 2]]),
        ([4, 5, 0, 1, 3], [[4, 5], [0, 1], [3]]),
        ([2, 1, 0], [[2], [1], [0]]),
        ([1, 3, 5], [[1], [3], [5]]),
    ],
)
def test_slots_next_to_each_other_are_one_group(slots: list[int], groups: list[list[int]]) -> None:
    found = list(_neighbours(slots))
    assert [list(range(each.start, each.stop)) for _, each in found] == groups
    assert [row for rows, _ in found for row in range(rows.start, rows.stop)] == list(range(len(slots)))
    assert [slots[rows] for rows, _ in found] == groups
