"""What may hang is read by one thread at a time, and nobody waits for it longer than they want to."""

import asyncio
import threading
import time

import pytest

from taxi_platform.trips.errors import LakeError
from taxi_platform.ui.known import Known


def refresh(known: Known, wait: float = 60.0) -> bool:
    return asyncio.run(known.refresh(wait))


def test_a_value_is_read_once_however_many_ask():
    readings = []
    known = Known("n", lambda: readings.append(1) or len(readings), seconds=3600)

    async def ask():
        return await asyncio.gather(*(known.refresh(60) for _ in range(50)))

    assert asyncio.run(ask()) == [True] * 50
    assert (refresh(known), known.value, readings) == (True, 1, [1])
    assert known.read_at == pytest.approx(time.time(), abs=60)


def test_a_value_that_is_too_old_is_read_again():
    values = iter("ab")
    known = Known("n", lambda: next(values), seconds=0)
    refresh(known)
    known.took = 3600.0  # it hung, which says nothing about the next time
    refresh(known)
    assert known.value == "b"


def test_what_is_costly_is_read_rarely():
    readings = []
    known = Known("n", lambda: readings.append(1), seconds=0, is_costly=True)
    refresh(known)
    known.took = 3600.0
    refresh(known)
    assert readings == [1]


def test_a_failure_keeps_the_value_and_is_told_in_one_line():
    answers = iter([lambda: 7, lambda: (_ for _ in ()).throw(LakeError("It is away.\nTwo", "Wait."))])
    known = Known("n", lambda: next(answers)(), seconds=0)
    refresh(known)
    read_at = known.read_at
    refresh(known)
    assert (known.value, known.problem, known.read_at) == (7, "It is away. Two Wait.", read_at)


@pytest.mark.fault(126)
def test_nobody_waits_for_what_hangs_and_no_second_thread_is_started():
    goes_on, started = threading.Event(), []

    def read():
        started.append(threading.current_thread())
        goes_on.wait(300)
        return "at last"

    known = Known("n", read, seconds=0)
    assert not refresh(known, 0.05)
    assert [refresh(known, 0.05) for _ in range(5)] == [False] * 5
    assert (len(started), known.value, known.hanging_for > 0.05, started[0].daemon) == (1, None, True, True)
    goes_on.set()
    started[0].join(300)
    assert (known.value, known.hanging_for, len(started)) == ("at last", 0.0, 1)
