"""The manifest of a store: what was read, dropped and written; and the same for people."""

import json
from collections import Counter
from pathlib import Path

import numpy as np

from dataset.store import FORMAT_VERSION
from preprocess.buckets import BucketResult, bin_width
from preprocess.records import KNOWN_KEYS
from preprocess.spool import MAX_PLACES, InputFile, Job, SplitResult, count_keys
from utils.common_utils import UserError, closest


class Census:
    """What the splits held, added up in the order of the inputs.

    Attributes:
        line_bases: of each split, the label of its input and the lines of the input that come before it.
        dropped: by reason, `{"count": int, "first": ["file:line: message", ...]}`.
    """

    def __init__(self):
        self.lines = 0
        self.blank_lines = 0
        self.records = 0
        self.line_bases: list[tuple[str, int]] = []
        self.dropped: dict[str, dict] = {}
        self.ignored_keys: Counter[str] = Counter()
        self._input: InputFile | None = None
        self._lines_of_input = 0

    def add(self, file: InputFile, result: SplitResult) -> None:
        """Add the next split.

        Raises:
            UserError: the split was given up at a bad record.
        """
        if file is not self._input:
            self._input, self._lines_of_input = file, 0
        base = self._lines_of_input
        if result.first_bad:
            line, message = result.first_bad
            raise UserError(
                f"{file.path}:{base + line}: {message}\n"
                "Mend the line, or leave out every bad record, counted, with --on_bad_record skip"
            )
        self.line_bases.append((file.label, base))
        for reason, drops in result.dropped.items():
            total = self.dropped.setdefault(reason, {"count": 0, "first": []})
            total["count"] += drops.count
            places = [f"{file.label}:{base + line}: {message}" for line, message in drops.places]
            total["first"] = (total["first"] + places)[:MAX_PLACES]
        count_keys(self.ignored_keys, result.ignored_keys)
        self.lines += result.lines
        self.blank_lines += result.blank_lines
        self.records += result.records
        self._lines_of_input += result.lines


def build_manifest(job: Job, census: Census, buckets: list[BucketResult]) -> dict:
    """Describe the store. Nothing in it depends on when, where or by how many processes it was written."""
    width = bin_width(job.chunk_size)
    lengths = np.sum([bucket.length_counts for bucket in buckets], axis=0).tolist()
    first_lengths = range(1, job.chunk_size + 1, width)
    return {
        "format_version": FORMAT_VERSION,
        "options": {
            "chunk_size": job.chunk_size,
            "chunk_overlap": job.chunk_overlap,
            "seed": job.seed,
            "on_bad_record": "error" if job.stop_at_bad_record else "skip",
            "max_line_bytes": job.max_line_bytes,
            "unlabelled": job.accept_unlabelled,
            "num_buckets": job.num_buckets,
            "num_shards": job.num_shards,
            "shard_index": job.shard_index,
        },
        "inputs": [{"name": file.label, "bytes": file.num_bytes} for file in job.inputs],
        "read": {
            "lines": census.lines,
            "blank_lines": census.blank_lines,
            "records": census.records,
            "dropped_records": sum(drop["count"] for drop in census.dropped.values()),
        },
        "written": {
            name: sum(getattr(bucket, name) for bucket in buckets)
            for name in ("contexts", "understanding_only_contexts", "examples", "characters", "chunks")
        },
        "dropped": census.dropped,
        "ignored_keys": dict(census.ignored_keys),
        "chunk_lengths": [
            {"from": first, "to": min(first + width - 1, job.chunk_size), "chunks": count}
            for first, count in zip(first_lengths, lengths[: len(first_lengths)], strict=True)
        ],
        "files": [entry for bucket in buckets for entry in bucket.files],
    }


def summary(manifest: dict, output_dir: Path) -> str:
    """Return what a run did, for people."""
    read, written, options = manifest["read"], manifest["written"], manifest["options"]
    counts = f"{read['records']:,} records, {read['dropped_records']:,} dropped, {read['blank_lines']:,} blank"
    lines = [f"read {read['lines']:,} lines: {counts}"]
    for reason, drop in manifest["dropped"].items():
        lines += [f"  dropped {drop['count']:,} {reason}, first {drop['first'][0]}"]
    for key, count in manifest["ignored_keys"].items():
        lines += [f"  ignored key {json.dumps(key)} in {count:,} records.{closest(key, KNOWN_KEYS)}"]
    if manifest["ignored_keys"] and not written["examples"]:
        lines += ["  warning: no record has a prompt; rename the keys that hold it and its answer to prompt and answer"]
    shard = f" (shard {options['shard_index']} of {options['num_shards']})" if options["num_shards"] > 1 else ""
    contexts = f"{written['contexts']:,} contexts ({written['understanding_only_contexts']:,} without prompts)"
    chunks = f"{written['chunks']:,} chunks, {written['characters']:,} characters"
    lines += [f"wrote {output_dir}{shard}: {contexts}, {written['examples']:,} examples, {chunks}"]
    lines += ["characters a chunk:"]
    most = max(each["chunks"] for each in manifest["chunk_lengths"]) or 1
    for each in manifest["chunk_lengths"]:
        bar = "#" * round(40 * each["chunks"] / most)
        lines += [f"  {each['from']:>7,} - {each['to']:<7,} {each['chunks']:>12,} {bar}".rstrip()]
    return "\n".join(lines)
