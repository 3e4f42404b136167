"""The rows of a Parquet file in batches of pyarrow's, which takes less time and memory than DuckDB's own reader.

DuckDB gives each thread a row group, a million rows in the TLC's files, and holds back what comes out of order. Fed
batch by batch, its threads share the work on one row group. The figures are in docs/performance.md.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from taxi_platform.trips.casting import SourceColumn, UnusualText

pa.set_memory_pool(pa.system_memory_pool())
"""The engine's own. pyarrow's keeps what was freed: 10 to 50 MB more at the peak, for 0 to 3 % less time."""

TextReaders = Mapping[int, Callable[[str], str | None]]
"""Position of a column → what reads its texts: see `casting.text_readers`."""

BATCH_ROWS = 12_288
"""A tenth of a row group of the clean file. With a sixth in each, cleaning takes 5 % less time and up to 515 MB in
place of 488; with a whole one 100 MB more, and no less time."""
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


LONG_BYTES = 4 << 20
"""Of the texts of one batch, which are not taken into Python; base numbers of 1,000 bases take 6 kB."""


class ParquetBatches:
    """The rows of a Parquet file, in order, to be read once."""

    def __init__(self, file: pq.ParquetFile) -> None:
        self.failure: BaseException | None = None
        """What ended the reading too early; the engine only reports that something did."""
        self._file = file
        self._read: dict[int, tuple[pa.Array, pa.Array]] = {}
        """Position of a column → its latest dictionary, as it was and as it was read."""

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

    def reader(self, texts: TextReaders) -> pa.RecordBatchReader:
        """The rows as a stream, which fails where a page is damaged or text is not UTF-8: the engine tests neither.

        It also fails where one of `texts` does: they are called once for each text of a dictionary, not for each row.
        """
        return pa.RecordBatchReader.from_batches(self._file.schema_arrow, self._batches(texts))

    def _batches(self, texts: TextReaders) -> Iterator[pa.RecordBatch]:
        try:
            # The engine's threads ask in turn, so that one reads while the others write.
            for batch in self._file.iter_batches(BATCH_ROWS, use_threads=False):
                batch.validate(full=True)
                yield self._with_read_texts(batch, texts)
        except GeneratorExit:
            raise  # the engine wants no more
        except BaseException as error:  # also an interrupt, which comes in whatever the main thread does
            self.failure = error
            raise

    def _with_read_texts(self, batch: pa.RecordBatch, texts: TextReaders) -> pa.RecordBatch:
        columns = batch.columns
        for position, read in texts.items():
            dictionary = columns[position].dictionary
            if position not in self._read or not dictionary.equals(self._read[position][0]):
                if dictionary.nbytes > LONG_BYTES:
                    raise UnusualText
                self._read[position] = dictionary, _read_dictionary(dictionary, read)
            values = self._read[position][1]
            columns[position] = pa.DictionaryArray.from_arrays(columns[position].indices, values, safe=False)
        return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _read_dictionary(dictionary: pa.Array, read: Callable[[str], str | None]) -> pa.Array:
    texts = dictionary.to_pylist()
    values = [read(text) for text in texts]
    if values == texts:
        return dictionary
    # Not by pa.array, which imports pandas: 0.2 s and 40 MB.
    encoded = [(value or "").encode() for value in values]
    offsets = array("i", accumulate(map(len, encoded), initial=0))
    validity = sum((value is not None) << position for position, value in enumerate(values))
    buffers = offsets, b"".join(encoded), validity.to_bytes(len(values) // 8 + 1, "little")
    return pa.StringArray.from_buffers(len(values), *map(pa.py_buffer, buffers))
