"""Waits for locks between threads and processes: how long they took is counted, for what a step says of itself."""

import threading
import time

from taxi_platform.trips.locks import forget_waits, lock_file, seconds_waited


def test_waits_are_counted_from_when_they_were_forgotten(tmp_path):
    path, others, goes_on = tmp_path / "a.lock", threading.Event(), threading.Event()

    def hold():
        with lock_file(path, "a", 60):
            others.set()
            goes_on.wait(300)
            time.sleep(0.2)

    holder = threading.Thread(target=hold)
    holder.start()
    others.wait(300)
    forget_waits()
    goes_on.set()
    with lock_file(path, "a", 60):
        assert seconds_waited() >= 0.1
    forget_waits()
    with lock_file(path, "a", 60):
        assert seconds_waited() < 60
    holder.join(300)
