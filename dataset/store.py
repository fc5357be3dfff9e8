"""The chunk store: contexts, their chunks and their examples on disk, opened by memory map.

    store folder/   manifest.json            options, counts, checksums, what was dropped
                    contexts-00000.arrow     digest, text, and where its chunks begin and end     } a pair
                    examples-00000.arrow     id, task, prompt, answers, meta, row of its context  } a bucket

`preprocess/preshuffle_data_and_chunk.py` writes it and `docs/data_format.md` describes it. Chunks are byte ranges of
the UTF-8 text, so that reading some of them touches nothing else of a context that may be megabytes long.
"""

import bisect
import functools
import hashlib
import heapq
import itertools
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from dataset.arrow_files import CONTEXT_SCHEMA, EXAMPLE_SCHEMA, MAKE_ONE, ArrowFile, ContextBatch, ContextFile
from utils.common_utils import UserError, read_json, sha256_file

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
MANY_CONTEXTS = 100_000
"""From so many on, a pass over all contexts shows its progress."""


@dataclass(frozen=True)
class Example:
    """A prompt about a context, with its reference answers."""

    id: str
    task: str
    prompt: str
    answers: list[str]
    """At least one; the first is the training target, all are scored."""
    meta: dict
    context_index: int


class ChunkStore:
    """One or several store folders, opened by memory map and numbered through as one.

    Contexts are numbered 0 .. num_contexts - 1 and examples 0 .. num_examples - 1, both in the shuffled order of the
    folders; examples of the same context are neighbours. Reading one costs a binary search, whatever the size of the
    store. A pickled store is only its paths: whoever unpickles it maps the files anew.

    Attributes:
        folders: the store folders, in the order given.
        manifests: their manifests, in the same order.
        chunk_size, chunk_overlap: in characters; the same in all folders.
        num_contexts, num_examples: over all folders.
        fingerprint: hex digest of the manifests, and so of all content, in the order given.

    Raises:
        UserError: a folder is no store, a file of it is missing or has another size than its manifest says, the same
            store is given twice, or the folders were chunked with different options.
    """

    def __init__(self, folders: Sequence[Path]):
        if not folders:
            raise UserError(f"no store folder given; {MAKE_ONE}")
        self.folders = [Path(folder) for folder in folders]
        self.manifests = [_read_manifest(folder) for folder in self.folders]
        self._check_repeats()
        self.chunk_size, self.chunk_overlap = self._common_options()
        digest = hashlib.blake2b(digest_size=16)
        self._contexts: list[ContextFile] = []
        self._examples: list[ArrowFile] = []
        for folder, manifest in zip(self.folders, self.manifests, strict=True):
            digest.update((folder / MANIFEST_NAME).read_bytes())
            for entry in manifest["files"]:
                _check_size(folder, entry)
                if entry["kind"] == "contexts":
                    self._contexts.append(ContextFile(folder / entry["name"], entry["rows"], CONTEXT_SCHEMA))
                else:
                    self._examples.append(ArrowFile(folder / entry["name"], entry["rows"], EXAMPLE_SCHEMA))
        self.fingerprint = digest.hexdigest()
        self._context_starts = [0, *itertools.accumulate(file.num_rows for file in self._contexts)]
        self._example_starts = [0, *itertools.accumulate(file.num_rows for file in self._examples)]
        self.num_contexts = self._context_starts[-1]
        self.num_examples = self._example_starts[-1]

    @classmethod
    def open(cls, paths: str | Path | Sequence[str | Path]) -> "ChunkStore":
        """Open one folder or several, such as the shards that several machines wrote.

        Where only some of a set of shards are given, a warning names the missing ones.
        """
        store = cls([Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths])
        store._warn_of_missing_shards()
        return store

    def __reduce__(self):
        return _reopen, (self.folders, self.fingerprint)

    @functools.cached_property
    def num_chunks(self) -> np.ndarray:
        """Chunks of every context, int64 [num_contexts]; read from list offsets alone, not from the texts."""
        counts = [np.diff(view.list_offsets) for file in self._contexts for view in file.views]
        return np.concatenate(counts, dtype=np.int64) if counts else np.zeros(0, dtype=np.int64)

    @functools.cached_property
    def example_context(self) -> np.ndarray:
        """Index of the context that every example asks about, int64 [num_examples], never decreasing."""
        rows = [
            batch.column("context_row").to_numpy() + start
            for file, start in zip(self._examples, self._context_starts, strict=False)
            for batch in file.batches
        ]
        return np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)

    @functools.cached_property
    def prompt_bytes(self) -> np.ndarray:
        """Length of every example's prompt in bytes of UTF-8, int64 [num_examples]."""
        return self._of_examples(lambda batch: pc.binary_length(batch.column("prompt")))

    @functools.cached_property
    def num_answers(self) -> np.ndarray:
        """Answers of every example, int64 [num_examples]."""
        return self._of_examples(lambda batch: pc.list_value_length(batch.column("answers")))

    def _of_examples(self, measure: Callable[[pa.RecordBatch], pa.Array]) -> np.ndarray:
        values = [measure(batch).to_numpy(zero_copy_only=False) for file in self._examples for batch in file.batches]
        return np.concatenate(values, dtype=np.int64) if values else np.zeros(0, dtype=np.int64)

    @functools.cached_property
    def tasks(self) -> set[str]:
        """The tasks of the examples; those without one have the empty string."""
        columns = (batch.column("task") for file in self._examples for batch in file.batches)
        return {task for column in columns for task in column.unique().to_pylist()}

    def context_digest(self, index: int) -> str:
        """Return the BLAKE2b-128 of a context's UTF-8 text in hex."""
        view, row = self._context(index)
        return view.digests[row].as_py()

    def context_text(self, index: int) -> str:
        """Return a whole context, verbatim."""
        view, row = self._context(index)
        return view.decode(row, 0, int(view.text_offsets[row + 1] - view.text_offsets[row]))

    def context_chunks(self, index: int, start: int = 0, end: int | None = None) -> list[str]:
        """Return chunks [start:end] of a context, reading no others."""
        view, row = self._context(index)
        starts, ends = view.chunk_bytes(row)
        spans = zip(starts[start:end].tolist(), ends[start:end].tolist(), strict=True)
        return [view.decode(row, *span) for span in spans]

    def chunk_overlaps(self, index: int, start: int = 0, end: int | None = None) -> list[int]:
        """Return how many characters each of chunks [start:end] shares with the chunk before it in its context.

        The first chunk of a context shares none. To rejoin a run of chunks, drop so many characters from the beginning
        of each but the run's first.
        """
        view, row = self._context(index)
        starts, ends = view.chunk_bytes(row)
        previous_ends = np.concatenate([[0], ends[:-1]])
        spans = zip(starts[start:end].tolist(), previous_ends[start:end].tolist(), strict=True)
        return [len(view.decode(row, *span)) for span in spans]

    def longest_runs(self, num_chunks: int, count: int) -> list[tuple[int, int, int]]:
        """Return runs of at most `num_chunks` chunks that have the most bytes, one of each of `count` contexts.

        Returns:
            Context and chunks [start:end] of each, the longest first.
        """
        runs = []
        few = self.num_contexts < MANY_CONTEXTS
        for index in tqdm(range(self.num_contexts), "looking for long chunks", leave=False, disable=few):
            view, row = self._context(index)
            starts, ends = view.chunk_bytes(row)
            width = min(num_chunks, len(starts))
            if width:
                lengths = ends[width - 1 :] - starts[: len(starts) - width + 1]
                first = int(lengths.argmax())
                runs.append((-int(lengths[first]), index, first, first + width))
        return [run[1:] for run in heapq.nsmallest(count, runs)]

    def example(self, index: int) -> Example:
        """Return an example; `meta` is decoded from its JSON."""
        file_index, row = _locate(self._example_starts, index, "example")
        batch_index, batch_row = self._examples[file_index].locate(row)
        batch = self._examples[file_index].batches[batch_index]
        values = {name: batch.column(name)[batch_row].as_py() for name in EXAMPLE_SCHEMA.names}
        context_index = values.pop("context_row") + self._context_starts[file_index]
        values["meta"] = json.loads(values["meta"])
        return Example(**values, context_index=context_index)

    def verify(self) -> None:
        """Read every file and compare it with its manifest's SHA-256; shows a progress bar.

        Raises:
            UserError: names every file that differs.
        """
        entries = [
            (folder, entry)
            for folder, manifest in zip(self.folders, self.manifests, strict=True)
            for entry in manifest["files"]
        ]
        damaged = []
        total = sum(entry["bytes"] for _, entry in entries)
        with tqdm(total=total, unit="B", unit_scale=True, desc="verify", disable=None) as progress:
            for folder, entry in entries:
                if sha256_file(folder / entry["name"]) != entry["sha256"]:
                    damaged.append(str(folder / entry["name"]))
                progress.update(entry["bytes"])
        if damaged:
            raise UserError(f"{', '.join(damaged)}: content differs from the manifest's checksum; {MAKE_ONE}")

    def _context(self, index: int) -> tuple[ContextBatch, int]:
        file_index, row = _locate(self._context_starts, index, "context")
        return self._contexts[file_index].view(row)

    def _check_repeats(self) -> None:
        """Refuse a folder that is given twice, and folders of the same content, such as one shard in two places."""
        seen: dict[str, Path] = {}
        for folder, manifest in zip(self.folders, self.manifests, strict=True):
            for identity in (str(folder.resolve()), json.dumps(manifest["files"])):
                if identity in seen:
                    raise UserError(
                        f"{folder}: the same store as {seen[identity]}, so every record of it would count twice; "
                        "name it once"
                    )
                seen[identity] = folder

    def _warn_of_missing_shards(self) -> None:
        sets: dict[str, list[tuple[Path, dict]]] = defaultdict(list)
        for folder, manifest in zip(self.folders, self.manifests, strict=True):
            options = {name: value for name, value in manifest["options"].items() if name != "shard_index"}
            sets[json.dumps([options, manifest.get("inputs")])].append((folder, manifest["options"]))
        for shards in sets.values():
            num_shards = shards[0][1].get("num_shards", 1)
            given = {options.get("shard_index", 0) for _, options in shards}
            if len(given) < num_shards:
                missing = ", ".join(str(index) for index in range(num_shards) if index not in given)
                folders = ", ".join(str(folder) for folder, _ in shards)
                logger.warning(
                    "%s: %d of %d shards given; without shard_index %s, a part of the data is not read",
                    *(folders, len(given), num_shards, missing),
                )

    def _common_options(self) -> tuple[int, int]:
        """Return the chunk size and overlap that all folders share."""
        for name in ("chunk_size", "chunk_overlap"):
            pairs = zip(self.folders, self.manifests, strict=True)
            values = {manifest["options"][name]: folder for folder, manifest in pairs}
            if len(values) > 1:
                listed = ", ".join(f"{folder} has {value}" for value, folder in values.items())
                raise UserError(f"stores with different {name} cannot be mixed: {listed}; chunk them alike")
        options = self.manifests[0]["options"]
        return options["chunk_size"], options["chunk_overlap"]


def check_store_paths(paths: Sequence[str], key: str, chunk_size: int, chunk_overlap: int) -> None:
    """Refuse what cannot be a store because it is no folder.

    Args:
        key: the option that names the paths, for messages.
        chunk_size, chunk_overlap: what the stores are to be chunked with.
    """
    for path in paths:
        if Path(path).is_dir():
            continue
        what, source = ("a file; chunk it first", path) if Path(path).is_file() else ("no such folder", "FILE.jsonl")
        raise UserError(
            f"{key}={path!r}: {what}: python preprocess/preshuffle_data_and_chunk.py --input {source} "
            f"--output_dir STORE --chunk_size {chunk_size} --chunk_overlap {chunk_overlap}"
        )


def _reopen(folders: list[Path], fingerprint: str) -> ChunkStore:
    store = ChunkStore(folders)
    if store.fingerprint != fingerprint:
        raise UserError(f"{', '.join(map(str, folders))}: the store was replaced while it was in use; start again")
    return store


def _locate(starts: list[int], index: int, what: str) -> tuple[int, int]:
    """Return the file that holds a global index, and its row there."""
    if not 0 <= index < starts[-1]:
        raise IndexError(f"{what} {index}: the store has {starts[-1]}")
    file_index = bisect.bisect_right(starts, index) - 1
    return file_index, index - starts[file_index]


def _read_manifest(folder: Path) -> dict:
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise UserError(f"{folder}: not a store (it has no {MANIFEST_NAME}); {MAKE_ONE}")
    manifest = read_json(path)
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(f"{path}: format_version={version}, and this program reads {FORMAT_VERSION}; {MAKE_ONE}")
    if missing := {"options", "files"} - manifest.keys():
        raise UserError(f"{path}: damaged (it lacks {', '.join(sorted(missing))}); {MAKE_ONE}")
    return manifest


def is_store(folder: Path) -> bool:
    """Tell whether a folder is a store of any version, by its manifest; checkpoints have a manifest of their own."""
    try:
        manifest = read_json(folder / MANIFEST_NAME)
    except UserError:
        return False
    return isinstance(manifest, dict) and {"format_version", "options"} <= manifest.keys()


def _check_size(folder: Path, entry: dict) -> None:
    path = folder / entry["name"]
    if not path.is_file():
        raise UserError(f"{path}: missing, though {MANIFEST_NAME} lists it; copy it again or {MAKE_ONE}")
    if path.stat().st_size != entry["bytes"]:
        raise UserError(
            f"{path}: {path.stat().st_size:,} bytes, and {MANIFEST_NAME} says {entry['bytes']:,}; "
            f"copy it again or {MAKE_ONE}"
        )
