"""Phase 2 of pre-shuffling: gather a bucket's records, order them by key, chunk the contexts and write a pair of files.

Memory holds the index of one bucket and one record batch, never a bucket's texts.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa

from dataset.arrow_files import CONTEXT_SCHEMA, EXAMPLE_SCHEMA
from preprocess.spool import TEXT, Job, iter_segment, spool_path
from utils.chunking import byte_spans, chunk_spans
from utils.common_utils import sha256_file

BATCH_BYTES = 8 << 20
"""A record batch is written when its rows hold so much."""
NUM_BINS = 16
"""Bins of the chunk-length histogram."""


@dataclass
class BucketResult:
    """What phase 2 wrote for a bucket."""

    files: list[dict] = field(default_factory=list)
    contexts: int = 0
    understanding_only_contexts: int = 0
    examples: int = 0
    characters: int = 0
    chunks: int = 0
    length_counts: np.ndarray = field(default_factory=lambda: np.zeros(NUM_BINS, dtype=np.int64))


def bin_width(chunk_size: int) -> int:
    """Return how many chunk lengths, in characters, a bin of the histogram takes in."""
    return -(-chunk_size // NUM_BINS)


class _ExampleSource(NamedTuple):
    """Where the gathered spool of a bucket holds an example, and where the example was read."""

    split: int
    line: int
    offset: int
    num_bytes: int


class _BatchWriter:
    """Writes rows to an Arrow file in record batches of bounded size."""

    def __init__(self, path: Path, schema: pa.Schema):
        self.path = path
        self.schema = schema
        self.num_rows = 0
        self.rows: list[tuple] = []
        self.num_bytes = 0
        self.writer = pa.ipc.new_file(str(path), schema)

    def add(self, row: tuple, num_bytes: int) -> None:
        self.rows.append(row)
        self.num_rows += 1
        self.num_bytes += num_bytes
        if self.num_bytes >= BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        if self.rows:
            columns = zip(zip(*self.rows, strict=True), self.schema.types, strict=True)
            columns = [pa.array(column, kind) for column, kind in columns]
            self.writer.write_batch(pa.record_batch(columns, schema=self.schema))
        self.rows, self.num_bytes = [], 0

    def close(self, kind: str) -> dict:
        """Finish the file and return its entry of the manifest."""
        self.flush()
        self.writer.close()
        return {
            "kind": kind,
            "name": self.path.name,
            "rows": self.num_rows,
            "bytes": self.path.stat().st_size,
            "sha256": sha256_file(self.path),
        }


def write_bucket(job: Job, line_bases: list[tuple[str, int]], bucket: int) -> BucketResult:
    """Phase 2: write a bucket's pair of files.

    Args:
        line_bases: of each split, the label of its file and how many lines of the file come before the split.
    """
    result = BucketResult()
    gathered_path = job.spool / f"bucket-{bucket:05d}"
    contexts = _BatchWriter(job.folder / f"contexts-{bucket:05d}.arrow", CONTEXT_SCHEMA)
    examples = _BatchWriter(job.folder / f"examples-{bucket:05d}.arrow", EXAMPLE_SCHEMA)
    with open(gathered_path, "w+b") as gathered:
        texts, sources = _gather(job, bucket, len(line_bases), gathered)
        for row, digest in enumerate(sorted(texts, key=job.key)):
            text = _read_at(gathered, *texts[digest])
            starts, ends = _chunk(job, text, result)
            contexts.add((digest.hex(), text, starts, ends), len(text) + 16 * len(starts))
            for source in sources.get(digest, ()):
                payload = _read_at(gathered, source.offset, source.num_bytes)
                example_id, *values = json.loads(payload)
                label, lines_before = line_bases[source.split]
                examples.add((example_id or f"{label}:{lines_before + source.line}", *values, row), len(payload))
            result.understanding_only_contexts += digest not in sources
    gathered_path.unlink()
    result.contexts, result.examples = contexts.num_rows, examples.num_rows
    result.files = [contexts.close("contexts"), examples.close("examples")]
    return result


def _gather(
    job: Job, bucket: int, num_splits: int, gathered: BinaryIO
) -> tuple[dict[bytes, tuple[int, int]], dict[bytes, list[_ExampleSource]]]:
    """Copy a bucket's records out of all spools, each context once, and return where everything lies.

    Returns:
        (offset, bytes) of each context by digest, and each context's examples in the order of the inputs.
    """
    texts: dict[bytes, tuple[int, int]] = {}
    sources: dict[bytes, list[_ExampleSource]] = defaultdict(list)
    position = 0
    for split in range(num_splits):
        with open(spool_path(job, split), "rb") as spool:
            for digest, line, num_bytes in iter_segment(spool, bucket):
                if line == TEXT and digest in texts:
                    spool.seek(num_bytes, 1)
                    continue
                if line == TEXT:
                    texts[digest] = (position, num_bytes)
                else:
                    sources[digest].append(_ExampleSource(split, line, position, num_bytes))
                gathered.write(spool.read(num_bytes))
                position += num_bytes
    return texts, sources


def _read_at(file: BinaryIO, offset: int, num_bytes: int) -> bytes:
    file.seek(offset)
    return file.read(num_bytes)


def _chunk(job: Job, encoded: bytes, result: BucketResult) -> tuple[list[int], list[int]]:
    """Cut a context and count it; return where its chunks start and end, in bytes."""
    text = encoded.decode("utf-8")
    spans = chunk_spans(text, job.chunk_size, job.chunk_overlap)
    lengths = np.diff(np.array(spans), axis=1)[:, 0]
    result.length_counts += np.bincount((lengths - 1) // bin_width(job.chunk_size), minlength=NUM_BINS)
    result.characters += len(text)
    result.chunks += len(spans)
    starts, ends = zip(*byte_spans(text, spans), strict=True)
    return list(starts), list(ends)
