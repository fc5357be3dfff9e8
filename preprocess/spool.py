"""Phase 1 of pre-shuffling: read, check and spool the lines of a split, grouped by bucket.

    inputs --splits of fixed size--> spool_split --> spool/00000, spool/00001 ... --> write_bucket (buckets.py)

A context's key is a hash of the seed and its text. Buckets are ranges of keys, so that the store as a whole is in the
order of the keys, which is a random one, and equal contexts meet wherever they were read. Splits do not depend on the
number of processes, and neither does what is made of them.
"""

import hashlib
import json
import struct
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from preprocess.records import BadRecord, Record, iter_lines, parse_record

MAX_PLACES = 20
"""Places of dropped records that are kept for each reason."""
MAX_IGNORED_KEYS = 100
"""Different unknown keys that are counted one by one."""
TEXT = -1
"""Stands for the line in the header of a context's text."""

_MAX_MESSAGE = 200
_BOM = b"\xef\xbb\xbf"
_OFFSET = struct.Struct("<q")
_HEADER = struct.Struct("<16sqq")  # digest of the context; line in the split, or TEXT; bytes that follow


@dataclass(frozen=True)
class InputFile:
    """A JSONL file."""

    path: Path
    label: str
    """What it is called in ids and in the manifest: its name, with as many folders as tell it from the others."""
    num_bytes: int


class Split(NamedTuple):
    """A byte range of an input; the lines that begin in it are one task of phase 1."""

    index: int
    input_index: int
    start: int
    end: int


@dataclass(frozen=True)
class Job:
    """What both phases need to know."""

    inputs: tuple[InputFile, ...]
    folder: Path
    """The store being written."""
    spool: Path
    """Where phase 1 leaves what phase 2 reads."""
    chunk_size: int
    chunk_overlap: int
    seed: int
    num_buckets: int
    num_shards: int
    shard_index: int
    stop_at_bad_record: bool
    max_line_bytes: int
    accept_unlabelled: bool = False

    def key(self, digest: bytes) -> bytes:
        """Return what a context is sorted by."""
        return hashlib.blake2b(f"{self.seed}:".encode() + digest, digest_size=16).digest()

    def bucket(self, digest: bytes) -> int:
        return int.from_bytes(self.key(digest)[:8], "big") * self.num_buckets >> 64


@dataclass
class Drops:
    """Records left out for one reason."""

    count: int = 0
    places: list[tuple[int, str]] = field(default_factory=list)
    """(line, message) of the first `MAX_PLACES`."""


@dataclass
class SplitResult:
    """What phase 1 found in a split. Line numbers count from 1 at the split's first line."""

    lines: int = 0
    blank_lines: int = 0
    records: int = 0
    dropped: dict[str, Drops] = field(default_factory=lambda: defaultdict(Drops))
    ignored_keys: Counter = field(default_factory=Counter)
    first_bad: tuple[int, str] | None = None
    """Where and why the split was given up, if `stop_at_bad_record`."""


def spool_path(job: Job, split_index: int) -> Path:
    return job.spool / f"{split_index:05d}"


def spool_split(job: Job, split: Split) -> SplitResult:
    """Phase 1: read, check and spool the lines of a split, grouped by bucket; a context's text once a split."""
    result = SplitResult()
    segments: dict[int, bytearray] = defaultdict(bytearray)
    seen: set[bytes] = set()
    with open(job.inputs[split.input_index].path, "rb") as file:
        for line in iter_lines(file, split.start, split.end, job.max_line_bytes):
            result.lines += 1
            if result.lines == 1 and split.start == 0 and line is not None:
                line = line.removeprefix(_BOM)
            if line is not None and not line.strip():
                result.blank_lines += 1
                continue
            try:
                record = _parse(job, line)
            except BadRecord as bad:
                if job.stop_at_bad_record:
                    result.first_bad = (result.lines, _shorten(str(bad)))
                    return result
                _drop(result, bad)
                continue
            result.records += 1
            count_keys(result.ignored_keys, Counter(map(_shorten, record.ignored_keys)))
            _spool_record(job, record, result.lines, seen, segments)
    _write_spool(spool_path(job, split.index), segments, job.num_buckets)
    return result


def count_keys(total: Counter, more: Counter) -> None:
    """Add counts of keys; those beyond `MAX_IGNORED_KEYS` are counted together, as a file may have millions."""
    for key, count in more.items():
        known = key in total or len(total) < MAX_IGNORED_KEYS
        total[key if known else "(other keys)"] += count


def _shorten(message: str) -> str:
    return message if len(message) <= _MAX_MESSAGE else message[:_MAX_MESSAGE] + "..."


def _parse(job: Job, line: bytes | None) -> Record:
    if line is None:
        raise BadRecord(
            "line_too_long", f"longer than {job.max_line_bytes:,} bytes; raise --max_line_mb if it is meant to be"
        )
    return parse_record(line, job.accept_unlabelled)


def _drop(result: SplitResult, bad: BadRecord) -> None:
    drops = result.dropped[bad.reason]
    drops.count += 1
    if len(drops.places) < MAX_PLACES:
        drops.places.append((result.lines, _shorten(str(bad))))


def _spool_record(job: Job, record: Record, line: int, seen: set[bytes], segments: dict[int, bytearray]) -> None:
    digest = hashlib.blake2b(record.context, digest_size=16).digest()
    bucket = job.bucket(digest)
    if bucket % job.num_shards != job.shard_index:
        return
    if digest not in seen:
        seen.add(digest)
        segments[bucket] += _HEADER.pack(digest, TEXT, len(record.context))
        segments[bucket] += record.context
    if record.prompt is not None:
        payload = json.dumps(
            [record.id, record.task, record.prompt, record.answers, record.meta], ensure_ascii=False
        ).encode()
        segments[bucket] += _HEADER.pack(digest, line, len(payload))
        segments[bucket] += payload


def _write_spool(path: Path, segments: dict[int, bytearray], num_buckets: int) -> None:
    """Write where each bucket's segment begins (and the last one ends), then the segments."""
    sizes = [len(segments.get(bucket, b"")) for bucket in range(num_buckets)]
    offsets = np.cumsum([(num_buckets + 1) * _OFFSET.size, *sizes])
    with open(path, "wb") as file:
        file.write(offsets.astype("<i8").tobytes())
        file.writelines(segments[bucket] for bucket in sorted(segments))


def iter_segment(spool: BinaryIO, bucket: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the headers of a bucket's records; the caller reads or passes the bytes that follow each."""
    spool.seek(bucket * _OFFSET.size)
    start, end = struct.unpack("<qq", spool.read(2 * _OFFSET.size))
    spool.seek(start)
    while start < end:
        digest, line, num_bytes = _HEADER.unpack(spool.read(_HEADER.size))
        yield digest, line, num_bytes
        start += _HEADER.size + num_bytes
