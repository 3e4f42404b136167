"""The rows of a Parquet file in batches of pyarrow's, which takes less time and memory than DuckDB's own reader.

DuckDB gives each thread a row group, a million rows in the TLC's files, and holds back what comes out of order. Fed
batch by batch, its threads share the work on one row group. The figures are in docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from taxi_platform.trips.casting import SourceColumn

BATCH_ROWS = 20_480
"""A sixth of a row group of the clean file. With a whole one in each, cleaning takes 100 MB more, and no less time."""
READ_ALIKE = {
    pa.null(): '"NULL"',
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.timestamp("us"): "TIMESTAMP",
    pa.dictionary(pa.int32(), pa.string()): "VARCHAR",
}
"""The types of the TLC's files, as they are read here → what DuckDB's own reader makes of them. Of others the two may
read other values."""


class ParquetBatches:
    """The rows of a Parquet file, in order, to be read once."""

    def __init__(self, file: pq.ParquetFile) -> None:
        self.failure: BaseException | None = None
        """What ended the reading too early; the engine only reports that something did."""
        self._file = file

    @classmethod
    def of(cls, path: Path, columns: Sequence[SourceColumn]) -> ParquetBatches | None:
        """None if only DuckDB's own reader, which finds these `columns`, should read the file."""
        # Texts as dictionaries: a file of 2 kB may repeat a long text in every row.
        texts = [column.name for column in columns if column.type == "VARCHAR"]
        # Without `pre_buffer`, or all that was read stays in memory to the end: the whole file.
        file = pq.ParquetFile(path, read_dictionary=texts, pre_buffer=False)
        fields = list(file.schema_arrow)
        can_pass = all(field.name and "\0" not in field.name for field in fields)  # to the engine, as C's strings
        found = [(column.name, column.relation_name, column.type) for column in columns]
        is_alike = found == [(field.name, field.name, READ_ALIKE.get(field.type)) for field in fields]
        return cls(file) if can_pass and is_alike else None

    def reader(self) -> pa.RecordBatchReader:
        """The rows as a stream, which fails where a page is damaged or text is not UTF-8: the engine tests neither."""
        return pa.RecordBatchReader.from_batches(self._file.schema_arrow, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            # The engine's threads ask in turn, so that one reads while the others write.
            for batch in self._file.iter_batches(BATCH_ROWS, use_threads=False):
                batch.validate(full=True)
                yield batch
        except GeneratorExit:
            raise  # the engine wants no more
        except BaseException as error:  # also an interrupt, which comes in whatever the main thread does
            self.failure = error
            raise
