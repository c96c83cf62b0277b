"""Waiting for a condition with a deadline: the one place in the tests that sleeps, and only to poll."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(what: str, probe: Callable[[], T | None], seconds: float = 60, every: float = 0.25) -> T:
    """Calls `probe` until it returns something true, and returns that.

    An assertion that `probe` raises counts as "not yet"; at the deadline it is the failure's message.
    """
    deadline = time.monotonic() + seconds
    last: object = None
    while True:
        try:
            last = probe()
            if last:
                return last
        except AssertionError as err:
            last = err
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}; last seen: {last}")
        time.sleep(every)
