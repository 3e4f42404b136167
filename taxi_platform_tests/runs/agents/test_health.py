"""When a run counts as lost: never on one look, never for a slow answer, never for a broker that is down."""

import pytest

from taxi_platform.runs.agents.broker import BrokerDown
from taxi_platform.runs.agents.health import ENDED_SECONDS, LOOKS, LOST_SECONDS, Judge, Suspicions

TASK, AGENT = "run.1", "host-1"
HAS, LACKS, SILENT, DOWN = frozenset({TASK}), frozenset(), None, BrokerDown("down", "start it")


class Scripted:
    """A clock, and an agent that answers as it was told."""

    def __init__(self):
        self.now, self.answer = 0.0, HAS
        self.judge = Judge(self, Suspicions(lambda: self.now))

    def tasks_of(self, agent):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def look(self, answer, seconds):
        """One look, so many seconds after the last."""
        self.now += seconds
        self.answer = answer
        try:
            return self.judge.problem(AGENT, TASK)
        except BrokerDown:
            return None


def looks(script):
    scripted = Scripted()
    return [scripted.look(answer, seconds) for answer, seconds in script]


@pytest.mark.fault(107)
def test_an_agent_that_stays_silent_is_lost_after_a_minute_and_not_before():
    problems = looks([(SILENT, 5)] * 13)
    assert problems[:12] == [None] * 12
    assert "has not answered for 60 s" in problems[12]


@pytest.mark.fault(108)
def test_slow_answers_are_no_alarm_however_many():
    assert looks([(SILENT, 5), (SILENT, 20), (SILENT, 20), (HAS, 14)] * 20) == [None] * 80


def test_one_look_after_a_long_pause_is_no_alarm():
    assert looks([(SILENT, 5), (SILENT, 10 * LOST_SECONDS)]) == [None, None]


@pytest.mark.fault(109)
def test_an_agent_that_answers_without_the_run_has_lost_it_after_some_looks():
    problems = looks([(HAS, 5), (LACKS, 5), (LACKS, 1), (LACKS, 1), (LACKS, ENDED_SECONDS)])
    assert problems[:-1] == [None] * 4
    assert "no longer has this run" in problems[-1]
    assert LOOKS == 3


def test_a_run_that_begins_or_ends_between_two_looks_is_no_alarm():
    assert looks([(LACKS, 5), (LACKS, 5), (HAS, 5), (LACKS, 5), (LACKS, 5)]) == [None] * 5


@pytest.mark.fault(110)
def test_time_in_which_the_broker_is_down_counts_against_nobody():
    script = [(SILENT, 5)] * 8 + [(DOWN, 5)] * 40 + [(SILENT, 5)] * 8 + [(HAS, 5)]
    assert looks(script) == [None] * len(script)
