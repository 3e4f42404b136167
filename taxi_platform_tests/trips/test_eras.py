"""All 85 eras of the TLC's files are read, and by name: no column without its place, no row without its account."""

import duckdb
import pytest

from taxi_platform.trips.contract import contract_of
from taxi_platform_tests.support.eras import EXPECTED_UNKNOWN, clean_era, eras

ALL = list(eras())


def test_the_history_is_complete():
    assert len(ALL) == 85
    assert {era.format for era in ALL} == {"csv", "parquet"}


@pytest.mark.parametrize("era", ALL, ids=str)
def test_an_era_is_read_whole(era, tmp_path):
    (tmp_path / "work").mkdir()
    rows, clean = clean_era(era, tmp_path)
    report = clean.report
    assert rows == report.rows_clean + report.rows_rejected
    assert report.rows_rejected <= rows * 0.02
    assert set(report.unknown_columns) <= EXPECTED_UNKNOWN.get(era.dataset, set())
    with duckdb.connect() as con:
        described = con.execute(f"DESCRIBE SELECT * FROM read_parquet('{clean.trips}')").fetchall()
        assert [(name, kind) for name, kind, *_ in described] == [
            (column.name, column.duckdb_type) for column in contract_of(era.dataset).table_columns
        ]
        filled = [c for c in ("pickup_datetime",) if c not in report.missing_columns]
        counts = ", ".join(f"count({column})" for column in filled)
        assert con.execute(f"SELECT {counts} FROM read_parquet('{clean.trips}')").fetchone() == (report.rows_clean,)
