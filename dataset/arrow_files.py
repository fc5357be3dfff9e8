"""The files of a chunk store: their columns, and their rows as views of a memory map."""

import bisect
import functools
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa

from utils.common_utils import UserError

MAKE_ONE = "make one with preprocess/preshuffle_data_and_chunk.py"

CONTEXT_SCHEMA = pa.schema(
    [
        ("digest", pa.string()),
        ("text", pa.large_string()),
        ("chunk_starts", pa.list_(pa.int64())),
        ("chunk_ends", pa.list_(pa.int64())),
    ]
)
EXAMPLE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("prompt", pa.large_string()),
        ("answers", pa.list_(pa.large_string())),
        ("meta", pa.large_string()),
        ("context_row", pa.int64()),
    ]
)


class ArrowFile:
    """One memory-mapped Arrow file, opened when it is first read."""

    def __init__(self, path: Path, num_rows: int, schema: pa.Schema):
        self.path = path
        self.num_rows = num_rows
        self.schema = schema

    @functools.cached_property
    def batches(self) -> list[pa.RecordBatch]:
        try:
            # The buffer keeps the map alive; closing the file frees its descriptor, of which a large store needs many.
            with pa.memory_map(str(self.path)) as file:
                reader = pa.ipc.open_file(file.read_buffer())
            batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{self.path}: damaged ({error}); {MAKE_ONE}") from None
        if reader.schema != self.schema or sum(batch.num_rows for batch in batches) != self.num_rows:
            raise UserError(f"{self.path}: not the columns or rows its manifest promises; {MAKE_ONE}")
        return batches

    @functools.cached_property
    def batch_ends(self) -> list[int]:
        return list(itertools.accumulate(batch.num_rows for batch in self.batches))

    def locate(self, row: int) -> tuple[int, int]:
        """Return the record batch that holds a row of the file, and the row's number in it."""
        index = bisect.bisect_right(self.batch_ends, row)
        return index, row - (self.batch_ends[index - 1] if index else 0)


class ContextBatch:
    """The columns of a record batch of contexts as views of the memory map."""

    def __init__(self, batch: pa.RecordBatch):
        self.digests = batch.column("digest")
        _, offsets, data = batch.column("text").buffers()
        self.text_offsets = np.frombuffer(offsets, dtype=np.int64)
        self.data = memoryview(data)
        starts, ends = batch.column("chunk_starts"), batch.column("chunk_ends")
        self.list_offsets = starts.offsets.to_numpy()
        self.starts = starts.values.to_numpy()
        self.ends = ends.values.to_numpy()

    def decode(self, row: int, start: int, end: int) -> str:
        """Return bytes [start, end) of a context's text as a string."""
        begin = int(self.text_offsets[row])
        return str(self.data[begin + start : begin + end], "utf-8")

    def chunk_bytes(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Return where each chunk of a context starts and ends, in bytes of its text."""
        first, last = self.list_offsets[row : row + 2]
        return self.starts[first:last], self.ends[first:last]


class ContextFile(ArrowFile):
    """A memory-mapped file of contexts."""

    @functools.cached_property
    def views(self) -> list[ContextBatch]:
        return [ContextBatch(batch) for batch in self.batches]

    def view(self, row: int) -> tuple[ContextBatch, int]:
        index, batch_row = self.locate(row)
        return self.views[index], batch_row
