"""Parquet in batches: the same files as by DuckDB's own reader, and the same words of what is wrong."""

import io
import signal
import subprocess
import sys
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi_platform.trips.casting import SourceColumn
from taxi_platform.trips.errors import DamagedRaw, NotData
from taxi_platform.trips.parquet_batches import LONG_BYTES, ParquetBatches
from taxi_platform_tests.support.cleaning_cases import clean, parquet
from taxi_platform_tests.support.eras import Era, eras, write_era

ERAS = [era for era in eras() if era.format == "parquet"]
ROWS = 250_000
"""Of several batches, published row groups and written ones."""


def month(rows: int = 3, **columns: pa.Array) -> pa.Table:
    times = pa.array([datetime(2020, 4, 7)] * rows, pa.timestamp("us"))
    return pa.table({"lpep_pickup_datetime": times, **columns})


@pytest.fixture
def in_batches(monkeypatch):
    """Whether each Parquet file was to be read in batches, in turn."""
    found, of = [], ParquetBatches.of

    def asked(path, columns):
        batches = of(path, columns)
        found.append(batches is not None)
        return batches

    monkeypatch.setattr(ParquetBatches, "of", asked)
    return found


@pytest.mark.parametrize("era", ERAS, ids=str)
def test_a_month_of_every_era_is_read_in_batches_into_the_same_bytes(era: Era, in_batches, tmp_path):
    data, name = write_era(era, tmp_path).read_bytes(), f"{era.dataset} {era.first}"
    assert clean(data, name).content == clean(data, name, in_batches=False).content
    assert in_batches == [True]


def test_rows_of_many_row_groups_keep_their_order_and_any_number_of_threads_writes_the_same_bytes(in_batches):
    numbers = [float(number) for number in range(ROWS)]
    texts = [None if number % 7 == 0 else f"é{number % 1000}" for number in range(ROWS)]
    table = month(ROWS, trip_distance=pa.array(numbers), other=pa.array(texts), ehail_fee=pa.nulls(ROWS))
    data = parquet(table, row_group_size=100_000)
    made = clean(data)
    assert in_batches == [True]
    assert made.column("trip_distance") == numbers
    assert made.table.equals(clean(data, in_batches=False).table)  # whose row groups may be a few rows longer
    assert made.content == clean(data, threads=1).content == clean(data, threads=5).content


@pytest.mark.parametrize("amount", [1e9, float("nan"), float("-inf")])
def test_an_amount_that_does_not_fit_is_rejected_after_rows_that_do(amount, in_batches):
    table = month(ROWS, total_amount=pa.array([2.5] * (ROWS - 1) + [amount]))
    made = clean(table)
    assert made.faults == [("invalid_value", "total_amount", None)]
    assert made.content == clean(table, in_batches=False).content
    assert in_batches == [True, True]  # as if every amount fits, and then with a test of each


@pytest.mark.parametrize("last", ["N", "?"])
def test_a_flag_that_is_not_known_is_stored_with_the_other_columns_after_rows_whose_flags_are(last, in_batches):
    spellings = {"Y": "Y", "N": "N", " y ": "Y", "1.0": "Y", "0": "N", "n": "N", " ": None, "": None, None: None}
    flags = [*spellings] * (ROWS // len(spellings)) + [last]
    table = month(len(flags), store_and_fwd_flag=pa.array(flags))
    made = clean(table)
    is_known = last in spellings
    assert made.column("store_and_fwd_flag") == [*map(spellings.get, flags)]
    assert made.column("extra_columns")[-1] == (None if is_known else '{"store_and_fwd_flag":"?"}')
    assert set(made.column("extra_columns")[:-1]) == {None}
    assert made.faults == []
    assert made.content == clean(table, in_batches=False).content
    assert in_batches == ([True] if is_known else [True, True])


@pytest.mark.parametrize("last", ["B00001", "", "with\0nul"])
def test_a_text_that_is_empty_or_cannot_be_stored_is_told_after_rows_whose_texts_are_usual(last, in_batches):
    bases = [None if number % 5 == 0 else f"B{number % 900:05}" for number in range(ROWS - 1)] + [last]
    times = pa.array([datetime(2020, 4, 7)] * ROWS, pa.timestamp("us"))
    table = pa.table({"pickup_datetime": times, "dispatching_base_num": pa.array(bases)})
    made = clean(table, "fhv 2020-04")
    can_be_stored = "\0" not in last
    assert made.column("dispatching_base_num") == [*bases[:-1], *([last or None] if can_be_stored else [])]
    assert made.faults == ([] if can_be_stored else [("invalid_value", "dispatching_base_num", None)])
    assert made.content == clean(table, "fhv 2020-04", in_batches=False).content
    assert in_batches == ([True] if can_be_stored else [True, True])


def test_texts_too_long_to_be_read_by_python_are_read_by_the_engine(in_batches):
    times = pa.array([datetime(2020, 4, 7)] * 3, pa.timestamp("us"))
    texts = pa.array(["x" * LONG_BYTES, "", "B00001"])
    table = pa.table({"pickup_datetime": times, "dispatching_base_num": texts})
    made = clean(table, "fhv 2020-04")
    assert made.column("dispatching_base_num") == ["x" * LONG_BYTES, None, "B00001"]
    assert made.content == clean(table, "fhv 2020-04", in_batches=False).content
    assert in_batches == [True, True]


def test_a_flag_with_two_sources_leaves_its_texts_as_they_are_published(in_batches):
    times = pa.array([datetime(2020, 4, 7)] * 3, pa.timestamp("us"))
    flags = {"store_and_fwd_flag": pa.array(["y", None, "Y"]), "store_and_forward": pa.array(["n", "y", "Y"])}
    table = pa.table({"tpep_pickup_datetime": times, **flags})
    made = clean(table, "yellow 2020-04")
    assert made.column("store_and_fwd_flag") == ["Y"] * 3
    assert made.column("extra_columns") == ['{"store_and_forward":"n"}', None, None]
    assert made.content == clean(table, "yellow 2020-04", in_batches=False).content
    assert in_batches == [True]


def test_reading_the_texts_of_a_month_does_not_import_pandas(tmp_path):
    """pyarrow imports it for as little as an array of one text."""
    path = tmp_path / "month.parquet"
    path.write_bytes(parquet(month(store_and_fwd_flag=pa.array(["y", " ", None]))))
    program = (
        "import sys; from pathlib import Path; from taxi_platform.trips.parquet_batches import ParquetBatches; "
        "from taxi_platform.trips.casting import SourceColumn, text_readers; "
        "from taxi_platform.trips.contract import contract_of; from taxi_platform.trips.months import Dataset; "
        "names = ('lpep_pickup_datetime', 'TIMESTAMP'), ('store_and_fwd_flag', 'VARCHAR'); "
        "sources = [SourceColumn(name, type_, name) for name, type_ in names]; "
        "texts = text_readers(contract_of(Dataset.GREEN), sources); "
        "reader = ParquetBatches.of(Path(sys.argv[1]), sources).reader(texts); "
        "print([batch['store_and_fwd_flag'].to_pylist() for batch in reader], 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert done.stdout == "[['Y', None, None]] False\n"


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 2, 3], pa.uint16()),
        pa.array([1.5, 2, 3], pa.float32()),
        pa.array([1, 2, 3], pa.timestamp("ms")),
        pa.array([1, 2, 3], pa.timestamp("us", "UTC")),
        pa.array([1, 2, 3], pa.decimal128(10, 2)),
        pa.array([[1], [], None]),
    ],
    ids=lambda column: str(column.type),
)
def test_a_file_with_other_types_is_read_by_the_engine_alone(column, in_batches):
    assert len(clean(month(other=column)).trips) == 3
    assert in_batches == [False]


def test_times_of_96_bits_and_names_that_cannot_be_passed_on_are_read_by_the_engine_alone(in_batches):
    old = io.BytesIO()
    pq.write_table(month(), old, use_deprecated_int96_timestamps=True)
    files = [
        old.getvalue(),
        month(a=pa.nulls(3), A=pa.nulls(3)),
        month(**{"a\0b": pa.nulls(3)}),
        month(**{"": pa.nulls(3)}),
    ]
    assert [len(clean(data).trips) for data in files] == [3] * 4
    assert in_batches == [False] * 4


@pytest.mark.fault(13)
def test_text_that_is_not_utf_8_is_refused_also_where_the_file_says_it_is_text(in_batches):
    data = parquet(
        month(other=pa.array(["a", "XYZ", "c"])), use_dictionary=False, compression="none", write_statistics=False
    )
    assert data.count(b"XYZ") == 1
    with pytest.raises(DamagedRaw, match="text that is not UTF-8"):
        clean(data.replace(b"XYZ", b"X\xffZ"))
    assert in_batches == [True]


@pytest.mark.fault(21)
def test_a_page_that_is_damaged_after_rows_that_are_not_is_told_in_the_engines_words(in_batches):
    table = month(ROWS, total_amount=pa.array([float(number) for number in range(ROWS)]))
    data = parquet(table, use_dictionary=False, compression="zstd", row_group_size=50_000)
    start = pq.read_metadata(io.BytesIO(data)).row_group(4).column(1).data_page_offset
    damaged = data[: start + 40] + bytes(400) + data[start + 440 :]
    said = []
    for way in (True, False):
        with pytest.raises(NotData, match="damaged") as caught:
            clean(damaged, in_batches=way)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert in_batches == [True]


@pytest.mark.fault(4)
def test_a_long_text_in_every_row_is_in_memory_once(tmp_path):
    path = tmp_path / "month.parquet"
    path.write_bytes(parquet(pa.table({"other": pa.array(["x" * 1_000_000] * 500)})))
    assert path.stat().st_size < 1_010_000
    batches = ParquetBatches.of(path, [SourceColumn("other", "VARCHAR", "other")])
    assert [batch.nbytes < 2_000_000 for batch in batches.reader({})] == [True]


def test_an_interrupt_while_a_batch_is_read_ends_the_cleaning(monkeypatch):
    """DuckDB reports it as an error of the stream, like one of the file, after which it would read on by itself."""
    batches = pq.ParquetFile.iter_batches

    def interrupted(file, *arguments, **options):
        yield from batches(file, *arguments, **options)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        clean(month(), threads=1)
