"""Contracts: how published names find their place, and what a version depends on."""

from importlib import resources

import pytest

from taxi_platform.trips.contract import all_rules, check_rules, contract_of, parse_contract
from taxi_platform.trips.errors import ContractError, UserError
from taxi_platform.trips.months import Dataset
from taxi_platform_tests.support.cleaning_cases import HEADS

GREEN = contract_of(Dataset.GREEN)


def text_of(dataset: Dataset) -> str:
    return resources.files("taxi_platform.trips").joinpath("contracts", f"{dataset}.toml").read_text("utf-8")


def version_with(old: str, new: str) -> str:
    text = text_of(Dataset.GREEN)
    assert old in text
    return parse_contract(Dataset.GREEN, text.replace(old, new, 1)).version


@pytest.mark.parametrize(
    ("dataset", "name", "canonical"),
    [
        ("yellow", "tpep_pickup_datetime", "pickup_datetime"),
        ("yellow", " TPEP_pickup_DateTime\t", "pickup_datetime"),
        ("yellow", "Trip_Pickup_DateTime", "pickup_datetime"),
        ("yellow", "Airport_fee", "airport_fee"),
        ("yellow", "rate_code", "rate_code_id"),
        ("yellow", "store_and_forward", "store_and_fwd_flag"),
        ("green", "Trip_type ", "trip_type"),
        ("green", "Ehail_fee", "ehail_fee"),
        ("fhv", "locationID", "pickup_location_id"),
        ("fhv", "PUlocationID", "pickup_location_id"),
        ("fhv", "dropOff_datetime", "dropoff_datetime"),
        ("fhv", "Dispatching_base_number", "dispatching_base_num"),
        ("fhvhv", "SR_Flag", "sr_flag"),
        ("fhvhv", "PULocationID", "pickup_location_id"),
    ],
)
def test_a_name_is_found_by_alias_without_case_and_surrounding_space(dataset, name, canonical):
    mapping = contract_of(Dataset(dataset)).map_columns(["pickup_datetime", name])
    assert (1 in mapping.sources[canonical]) and mapping.unknown == ()


def test_every_canonical_name_finds_itself():
    for contract in map(contract_of, Dataset):
        names = [column.name for column in contract.columns]
        mapping = contract.map_columns(names)
        assert mapping.sources == {name: (position,) for position, name in enumerate(names)}
        assert (mapping.unknown, mapping.missing) == ((), ())


def test_no_alias_leads_to_two_columns():
    for contract in map(contract_of, Dataset):
        names = [alias.lower() for column in contract.columns for alias in {column.name, *column.aliases}]
        assert len(names) == len(set(names)), contract.dataset


@pytest.mark.parametrize("month", HEADS)
def test_every_era_is_known_whole(month):
    names = HEADS[month].splitlines()[0].replace('"', "").split(",")
    mapping = contract_of(Dataset(month.split()[0])).map_columns(names)
    assert mapping.unknown == ()
    assert sum(map(len, mapping.sources.values())) == len(names)


def test_repeated_unknown_missing_and_ignored_columns_are_distinguished():
    names = ["lpep_pickup_datetime", "new", "VendorID", "vendor_id", "new", "__index_level_0__"]
    mapping = GREEN.map_columns(names)
    assert mapping.sources == {"pickup_datetime": (0,), "vendor_id": (2, 3)}
    assert mapping.unknown == (1, 4)
    assert "trip_distance" in mapping.missing
    assert len(mapping.missing) == len(GREEN.columns) - 2


def test_without_a_pickup_time_the_error_lists_what_was_expected_and_found():
    with pytest.raises(ContractError) as error:
        GREEN.map_columns(["VendorID", "tpep_pickup_datetime"])
    for part in ("pickup_datetime, lpep_pickup_datetime", "'VendorID', 'tpep_pickup_datetime'", "green.toml"):
        assert part in str(error.value)


def test_the_error_stays_readable_where_the_file_has_thousands_of_columns():
    with pytest.raises(ContractError) as error:
        GREEN.map_columns([f"column_{number}" for number in range(100_000)])
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('aliases = ["VendorID"]', 'aliases = ["VendorID", "vendor"]'),
        ("cmt = 1", "cmt = 3"),
        ('name = "trip_distance", type = "F"', 'name = "trip_distance", type = "M"'),
        ('zero_distance = "trip_distance = 0"', 'zero_distance = "trip_distance <= 0"'),
        ('ignored = ["__index_level_0__"]', "ignored = []"),
    ],
)
def test_the_version_changes_with_what_decides_on_values(old, new):
    assert version_with(old, new) != GREEN.version


def test_the_version_does_not_change_with_a_description_or_a_comment():
    assert version_with("Miles by the taximeter.", "Miles.") == GREEN.version
    assert version_with('description = "Green taxis', '# a comment\ndescription = "Green cabs') == GREEN.version


def test_the_file_version_is_12_hex_digits_of_content_contract_and_rules():
    versions = {
        GREEN.file_version("a" * 64),
        GREEN.file_version("b" * 64),
        contract_of(Dataset.YELLOW).file_version("a" * 64),
        GREEN.file_version("a" * 64, ["zero_distance"]),
        GREEN.file_version("a" * 64, ["zero_distance", "zero_passengers"]),
    }
    assert len(versions) == 5
    assert all(len(version) == 12 and set(version) <= set("0123456789abcdef") for version in versions)
    both = ["zero_passengers", "zero_distance"]
    assert GREEN.file_version("a", both) == GREEN.file_version("a", both[::-1])


def test_rules_are_sorted_and_those_of_other_datasets_left_out():
    assert GREEN.check_rules(["zero_passengers", "long_distance", "long_distance"]) == (
        "long_distance",
        "zero_passengers",
    )
    fhv = contract_of(Dataset.FHV)
    assert fhv.own_rules(["zero_passengers", "over_24_hours"]) == ("over_24_hours",)
    with pytest.raises(UserError, match=r"'zero_passengers' is not a suspicious rule of fhv\. Choose from dropoff_"):
        fhv.check_rules(["over_24_hours", "zero_passengers"])
    assert check_rules([fhv, GREEN], ["zero_passengers", "over_24_hours"]) == ("over_24_hours", "zero_passengers")
    with pytest.raises(UserError, match="zero_distance"):
        GREEN.check_rules(["too_slow"])


def test_the_rules_are_those_promised():
    assert set(all_rules()) == {
        *("zero_passengers", "zero_distance", "long_distance", "negative_total", "dropoff_before_pickup"),
        *("over_24_hours", "outside_month", "exact_duplicate", "unknown_zone"),
    }
