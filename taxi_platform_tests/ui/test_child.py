"""A process of `taxi dev` that ends by itself."""

import pytest

from taxi_platform.trips.errors import TaxiError
from taxi_platform.ui.child import RESTARTS, Child
from taxi_platform_tests.support.system import wait_for


@pytest.mark.fault(79)
def test_a_child_that_keeps_ending_is_given_up_with_its_last_words(tmp_path):
    log, said = tmp_path / "daemon.log", []
    child = Child("daemon", ["-c", "raise SystemExit('no room')"], log, lambda: True)
    child.start()
    for _ in range(RESTARTS):
        wait_for(child.has_ended)
        child.restart_if_ended(said.append)
    wait_for(child.has_ended)
    with pytest.raises(TaxiError, match=r"The daemon ended with status 1: no room Its log is .*daemon\.log"):
        child.restart_if_ended(said.append)
    assert said == ["The daemon ended with status 1: no room It is started again."] * RESTARTS


def test_a_child_that_runs_is_left_alone_until_it_is_stopped(tmp_path):
    child = Child("daemon", ["-c", "import time; time.sleep(600)"], tmp_path / "daemon.log", lambda: True)
    child.start()
    process = child.process
    child.restart_if_ended(print)
    assert child.process is process
    child.stop()
    assert process.poll() is not None
