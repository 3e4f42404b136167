"""The page of faults is complete and up to date."""

from taxi_platform_tests.support.fault_table import PAGE, marked_tests, page


def test_every_fault_has_a_test():
    assert [number for number, tests in marked_tests().items() if not tests] == []


def test_the_page_is_up_to_date():
    assert PAGE.read_text("utf-8") == page(), "python -m taxi_platform_tests.support.fault_table"
