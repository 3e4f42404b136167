"""What TAXI_SCHEDULE takes."""

import pytest

from taxi_platform.automation.schedules import check_schedule
from taxi_platform.trips.errors import SettingError


@pytest.mark.parametrize("cron", ["every morning", "61 6 * * *"])
def test_a_wrong_cron_line_is_named_with_an_example(cron):
    with pytest.raises(SettingError, match=r"TAXI_SCHEDULE is .*such as 30 6 \* \* \*"):
        check_schedule(cron)


@pytest.mark.parametrize("cron", [None, "30 22 * * 1-5"])
def test_a_cron_line_and_none_pass(cron):
    check_schedule(cron)
