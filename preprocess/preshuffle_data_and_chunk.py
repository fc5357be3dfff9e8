"""Turn JSONL files into a chunk store: checked, shuffled, each context once, cut into chunks, opened by memory map.

    python preprocess/preshuffle_data_and_chunk.py --input train.jsonl --output_dir stores/train --chunk_size 512

Memory stays bounded whatever the size of the inputs; the disk must have room for about twice the inputs, in the folder
of --output_dir. The result depends on the inputs, the seed and the options, not on --num_proc. docs/data_format.md
describes the input, the rules of chunking and the store.
"""

import argparse
import contextlib
import fcntl
import functools
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from dataset.store import MANIFEST_NAME, is_store
from preprocess.buckets import BucketResult, write_bucket
from preprocess.manifest import Census, build_manifest, summary
from preprocess.parallel import OrderedMap, ordered_map
from preprocess.spool import InputFile, Job, Split, spool_split
from preprocess.writing import writing
from utils.chunking import check_chunk_options
from utils.common_utils import UserError, atomic_folder, atomic_write_text, run_cli

BUCKET_BYTES = 128 << 20
SPLIT_BYTES = 32 << 20
TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Options:
    """What a run is asked for."""

    input: tuple[Path, ...]
    output_dir: Path
    chunk_size: int = 512
    """Characters a chunk holds at most."""
    chunk_overlap: int = 0
    """Characters a chunk shares with the one before it, at most."""
    seed: int = 0
    num_proc: int = 1
    on_bad_record: str = "error"
    """`error` or `skip`."""
    max_line_mb: float = 32
    """Longest line accepted, in MiB."""
    num_shards: int = 1
    """Machines that share the work."""
    shard_index: int = 0
    overwrite: bool = False
    unlabelled: bool = False
    """Accept prompts whose list of answers is empty: they can be answered, not scored or trained on."""
    split_bytes: int = SPLIT_BYTES
    """Input bytes a task of phase 1 reads; the result does not depend on it."""
    bucket_bytes: int = BUCKET_BYTES
    """Input bytes for each bucket of the store."""

    def __post_init__(self):
        check_chunk_options(self.chunk_size, self.chunk_overlap)
        if self.num_proc < 1:
            raise UserError(f"--num_proc={self.num_proc}: needs at least 1 process")
        if self.max_line_mb <= 0:
            raise UserError(f"--max_line_mb={self.max_line_mb}: must be above 0; 32 is usual")
        if not 0 <= self.shard_index < self.num_shards:
            raise UserError(
                f"--shard_index={self.shard_index} --num_shards={self.num_shards}: "
                "the index counts from 0 and stays below the number"
            )


def preshuffle(options: Options) -> dict:
    """Write the store and return its manifest.

    Raises:
        UserError: an input is missing, empty or holds nothing usable; a record is bad and `on_bad_record` is `error`;
            the output exists and may not be replaced.
    """
    inputs = find_inputs(options.input)
    output_dir = options.output_dir.resolve()
    check_output(output_dir, inputs, options.overwrite)
    total_bytes = sum(file.num_bytes for file in inputs)
    with _claim(output_dir), atomic_folder(output_dir) as folder:
        job = Job(
            inputs=inputs,
            folder=folder,
            spool=folder / "spool",
            chunk_size=options.chunk_size,
            chunk_overlap=options.chunk_overlap,
            seed=options.seed,
            num_buckets=max(options.num_shards, -(-total_bytes // options.bucket_bytes)),
            num_shards=options.num_shards,
            shard_index=options.shard_index,
            stop_at_bad_record=options.on_bad_record == "error",
            max_line_bytes=int(options.max_line_mb * (1 << 20)),
            accept_unlabelled=options.unlabelled,
        )
        job.spool.mkdir()
        with ordered_map(options.num_proc) as run:
            census = read_inputs(job, plan_splits(inputs, options.split_bytes), run)
            buckets = write_buckets(job, census.line_bases, run)
        shutil.rmtree(job.spool)
        manifest = build_manifest(job, census, buckets)
        atomic_write_text(folder / MANIFEST_NAME, json.dumps(manifest, indent=2) + "\n")
    return manifest


def find_inputs(paths: tuple[Path, ...]) -> tuple[InputFile, ...]:
    """Check the input files and give each a label that no other has."""
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file")
        if not path.is_file():
            raise UserError(f"{path}: not a file; give the JSONL files in it, such as {path}/*.jsonl")
        if path.suffix in TABLE_SUFFIXES:
            raise UserError(
                f"{path}: expected JSONL, found {path.suffix}; `python preprocess/convert.py table --input {path} ...` "
                "turns it into JSONL"
            )
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty; was it written completely? If so, leave it out of --input")
    resolved = [path.resolve() for path in paths]
    for path, count in Counter(resolved).items():
        if count > 1:
            raise UserError(f"{path}: given {count} times in --input; every record of it would count {count} times")
    labels = [path.name for path in paths]
    if len(set(labels)) < len(labels):
        common = os.path.commonpath([path.parent for path in resolved])
        labels = [path.relative_to(common).as_posix() for path in resolved]
    # A name that is not UTF-8 on disk cannot be written to an id as it is.
    labels = [label.encode("utf-8", "replace").decode() for label in labels]
    return tuple(InputFile(*each) for each in zip(paths, labels, (path.stat().st_size for path in paths), strict=True))


def check_output(output_dir: Path, inputs: tuple[InputFile, ...], overwrite: bool) -> None:
    """Refuse an output folder whose replacement is not wanted, or would destroy what is no store."""
    if not os.path.lexists(output_dir):
        return
    if not overwrite:
        raise UserError(f"{output_dir}: exists; choose another --output_dir, or replace it with --overwrite")
    if not is_store(output_dir) and not (output_dir.is_dir() and not any(output_dir.iterdir())):
        raise UserError(
            f"{output_dir}: not a store (it has no {MANIFEST_NAME} of one), so --overwrite does not remove it; "
            "choose another --output_dir"
        )
    for file in inputs:
        if output_dir in file.path.resolve().parents:
            raise UserError(f"{file.path}: lies in {output_dir}, which --overwrite would remove; choose another folder")


@contextlib.contextmanager
def _claim(output_dir: Path) -> Iterator[None]:
    """Keep a second run from writing the same store at the same time; a killed run's claim ends with it."""
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    path = output_dir.with_name(f".{output_dir.name}.lock")
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{output_dir}: another run is writing it; choose another --output_dir, or wait") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def plan_splits(inputs: tuple[InputFile, ...], split_bytes: int) -> list[Split]:
    ranges = [
        (input_index, start, min(start + split_bytes, file.num_bytes))
        for input_index, file in enumerate(inputs)
        for start in range(0, file.num_bytes, split_bytes)
    ]
    return [Split(index, *each) for index, each in enumerate(ranges)]


def read_inputs(job: Job, splits: list[Split], run: OrderedMap) -> Census:
    """Phase 1: spool all splits."""
    census = Census()
    total = sum(file.num_bytes for file in job.inputs)
    with tqdm(total=total, unit="B", unit_scale=True, desc="read", disable=None) as progress:
        for split, result in zip(splits, run(functools.partial(spool_split, job), splits), strict=True):
            census.add(job.inputs[split.input_index], result)
            progress.update(split.end - split.start)
    if not census.records:
        drops = "; ".join(
            f"{drop['count']} {reason}, first {drop['first'][0]}" for reason, drop in census.dropped.items()
        )
        raise UserError(
            f"{', '.join(str(file.path) for file in job.inputs)}: no usable record in {census.lines:,} lines"
            + (f" ({drops})" if drops else ", which are all blank")
        )
    return census


def write_buckets(job: Job, line_bases: list[tuple[str, int]], run: OrderedMap) -> list[BucketResult]:
    """Phase 2: write this shard's buckets."""
    buckets = range(job.shard_index, job.num_buckets, job.num_shards)
    results = run(functools.partial(write_bucket, job, line_bases), buckets)
    return list(tqdm(results, total=len(buckets), unit="bucket", desc="write", disable=None))


def parse_options(arguments: list[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--input", type=Path, nargs="+", required=True, metavar="JSONL", help="JSONL files, one record a line")
    add("--output_dir", type=Path, required=True, metavar="FOLDER", help="folder of the store to write")
    add("--chunk_size", type=int, default=512, help="characters a chunk holds at most")
    add("--chunk_overlap", type=int, default=0, help="characters a chunk shares with the one before it, at most")
    add("--seed", type=int, default=0, help="seed of the shuffle")
    add("--num_proc", type=int, default=os.cpu_count() or 1, help="worker processes")
    add("--on_bad_record", choices=("error", "skip"), default="error", help="stop at the first one, or count them")
    add("--max_line_mb", type=float, default=32, help="longest line accepted, in MiB")
    add("--unlabelled", action="store_true", help="accept empty lists of answers: to be answered, not trained on")
    add("--num_shards", type=int, default=1, help="machines that share the work; each writes its own folder")
    add("--shard_index", type=int, default=0, help="which of them this is, counted from 0")
    add("--overwrite", action="store_true", help="replace the store in --output_dir, once the new one is complete")
    values = vars(parser.parse_args(arguments))
    return Options(**{**values, "input": tuple(values["input"])})


def main() -> None:
    options = parse_options()
    with writing(options.output_dir, "--output_dir", needs="about twice the inputs' bytes"):
        manifest = preshuffle(options)
    print(summary(manifest, options.output_dir))


if __name__ == "__main__":
    run_cli(main)
