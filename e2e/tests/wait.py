"""Waiting for a condition with a deadline: the one place in the tests that sleeps, and only to poll."""

import socket
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


def until_listens(host: str, port: int, seconds: float = 30) -> None:
    """Waits until a connection is accepted: a Service accepts some time after its pods are ready."""

    def listens() -> bool:
        with socket.socket() as probe:
            probe.settimeout(5)
            return probe.connect_ex((host, port)) == 0

    until(f"{host}:{port} accepts connections", listens, seconds)
