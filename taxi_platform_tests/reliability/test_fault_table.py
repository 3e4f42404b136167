"""The pages of faults are complete and up to date."""

from collections import Counter

from taxi_platform_tests.support.documents import read_page
from taxi_platform_tests.support.fault_table import EVIDENCE_PAGE, FAULTS, KINDS, PAGE, evidence, marked_tests, page

COMMAND = "python -m taxi_platform_tests.support.fault_table"


def test_every_fault_has_a_test():
    assert [number for number, tests in marked_tests().items() if not tests] == []


def test_every_fault_is_of_one_kind():
    assert Counter(number for kind in KINDS for number in kind.faults()) == Counter(list(FAULTS))


def test_the_pages_are_up_to_date():
    assert PAGE.read_text("utf-8") == page(), COMMAND
    assert EVIDENCE_PAGE.read_text("utf-8") == evidence(), COMMAND


def test_people_find_every_fault_its_outcome_and_its_tests():
    text, proof = page(), read_page(EVIDENCE_PAGE, evidence())
    for number, (fault, outcome) in FAULTS.items():
        assert f"| {fault} | {outcome} | [" in text
        assert f"fault-{number}" in proof.anchors
    assert "::" not in text and "test_" not in text
    assert {kind.anchor for kind in KINDS if kind.faults()} < read_page(PAGE, text).anchors
