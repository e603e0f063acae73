from __future__ import annotations

import email.utils
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tympan.client.backoff import Backoff
from tympan.client.transport import retry_after_seconds


@given(st.integers(1, 50), st.floats(0, 600), st.floats(0, 1, exclude_max=True))
def test_waits_within_bounds(attempt: int, retry_after: float, jitter: float) -> None:
    backoff = Backoff(jitter=lambda: jitter)
    wait = backoff.wait_seconds(attempt, retry_after)
    doubled = min(0.5 * 2.0 ** (attempt - 1), 30.0)
    assert max(doubled / 2, retry_after) <= wait <= max(doubled, retry_after * 1.25)


def test_waits_double() -> None:
    backoff = Backoff(jitter=lambda: 0.999999)
    assert [backoff.wait_seconds(n) for n in (1, 2, 3, 8)] == pytest.approx([0.5, 1, 2, 30], rel=1e-3)


def test_retry_after_in_both_forms() -> None:
    assert retry_after_seconds("7") == 7.0
    in_a_minute = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert 0 < retry_after_seconds(in_a_minute) <= 60
    assert retry_after_seconds(email.utils.formatdate(0, usegmt=True)) == 0.0
    assert retry_after_seconds("soon") == retry_after_seconds("") == 0.0
