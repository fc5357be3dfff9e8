"""The chunk store: reading it by global index, in several folders, pickled, and what it refuses to open."""

import functools
import hashlib
import itertools
import json
import os
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

import preprocess.buckets
from dataset.store import MANIFEST_NAME, ChunkStore
from preprocess.preshuffle_data_and_chunk import Options, preshuffle
from utils.chunking import chunk_spans, split_into_chunks
from utils.common_utils import UserError

SIZE, OVERLAP = 30, 7


def make_store(folder: Path, seed: int = 0, **options) -> dict[str, list[str]]:
    """Write a store of several buckets; return the prompts of each context."""
    rng = random.Random(seed)
    prompts_by_context = {}
    source = folder.with_suffix(".jsonl")
    with open(source, "w", encoding="utf-8") as file:
        for number in range(25):
            words = rng.choices(["plain", "naïve", "文字，", "🚀👩🏽\u200d🚀", "end.", "\n\n"], k=rng.randint(1, 80))
            context = f"{seed}/{number} " + " ".join(words)
            prompts_by_context[context] = [f"prompt {number}.{q}" for q in range(number % 3)]
            for prompt in prompts_by_context[context] or [None]:
                record = {
                    "context": context,
                    "prompt": prompt,
                    "answer": prompt and ["yes", "no"],
                    "meta": {"n": number},
                }
                file.write(json.dumps(record) + "\n")
    preshuffle(
        Options((source,), folder, **{"chunk_size": SIZE, "chunk_overlap": OVERLAP, "bucket_bytes": 4_000, **options})
    )
    return prompts_by_context


@pytest.fixture
def store_and_source(tmp_path, monkeypatch):
    monkeypatch.setattr(preprocess.buckets, "BATCH_BYTES", 600)  # so that a file holds several record batches
    first, second = make_store(tmp_path / "s1", 1), make_store(tmp_path / "s2", 2)
    store = ChunkStore.open([tmp_path / "s1", str(tmp_path / "s2")])
    assert len(store._contexts) > 4
    assert max(len(file.batches) for file in store._contexts) > 2
    return store, first | second


def test_contexts_chunks_and_overlaps(store_and_source):
    store, source = store_and_source
    assert store.num_contexts == len(source) == len(store.num_chunks) == 50
    assert (store.chunk_size, store.chunk_overlap) == (SIZE, OVERLAP)
    seen = set()
    for index in np.random.default_rng(0).permutation(50).tolist():
        text = store.context_text(index)
        seen.add(text)
        chunks = store.context_chunks(index)
        assert chunks == split_into_chunks(text, SIZE, OVERLAP)
        assert len(chunks) == store.num_chunks[index]
        spans = chunk_spans(text, SIZE, OVERLAP)
        overlaps = [0] + [before[1] - after[0] for before, after in itertools.pairwise(spans)]
        assert store.chunk_overlaps(index) == overlaps
        assert store.context_chunks(index, 1, 3) == chunks[1:3]
        assert store.chunk_overlaps(index, 1, 3) == overlaps[1:3]
        assert store.context_chunks(index, len(chunks) - 1) == chunks[-1:]
        assert chunks[0] + "".join(c[o:] for c, o in zip(chunks[1:], overlaps[1:], strict=True)) == text
    assert seen == set(source)


def test_examples_point_at_their_contexts(store_and_source):
    store, source = store_and_source
    assert store.num_examples == sum(map(len, source.values())) == len(store.example_context)
    for index in range(store.num_examples):
        example = store.example(index)
        assert example.context_index == store.example_context[index]
        assert example.prompt in source[store.context_text(example.context_index)]
        assert example.answers == ["yes", "no"]
        assert example.meta == {"n": int(example.prompt.split()[1].split(".")[0])}
    assert (np.diff(store.example_context) >= 0).all()


def test_the_digest_is_that_of_the_text(store_and_source):
    store, _ = store_and_source
    for index in (0, 49):
        text = store.context_text(index)
        assert store.context_digest(index) == hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def test_reading_chunks_leaves_the_rest_of_the_text_alone(tmp_path):
    """Bytes outside the chunk asked for are not decoded: they may even be invalid."""
    source = tmp_path / "a.jsonl"
    source.write_text(json.dumps({"context": "first " * 1_000 + "LAST"}))
    preshuffle(Options((source,), tmp_path / "store", chunk_size=60))
    path = tmp_path / "store" / "contexts-00000.arrow"
    path.write_bytes(path.read_bytes().replace(b"LAST", b"\xff\xff\xff\xff"))
    store = ChunkStore.open(tmp_path / "store")
    assert store.context_chunks(0, 0, 2) == ["first " * 10] * 2
    with pytest.raises(UnicodeDecodeError):
        store.context_text(0)


@pytest.mark.parametrize("index", [-1, 50])
def test_an_index_out_of_range_is_an_error(store_and_source, index):
    store, _ = store_and_source
    with pytest.raises(IndexError, match=f"context {index}: the store has 50"):
        store.context_text(index)
    with pytest.raises(IndexError, match="example"):
        store.example(store.num_examples)


class _Texts(Dataset):
    def __init__(self, store):
        self.store = store

    def __len__(self):
        return self.store.num_contexts

    def __getitem__(self, index):
        return self.store.context_text(index)


def test_a_pickled_store_maps_the_files_anew(store_and_source):
    store, _ = store_and_source
    store.num_chunks  # noqa: B018 - fills the cache, which must not be pickled along
    pickled = pickle.dumps(store)
    assert len(pickled) < 1_000
    again = pickle.loads(pickled)
    assert again.fingerprint == store.fingerprint
    texts = [store.context_text(index) for index in range(store.num_contexts)]
    workers = DataLoader(_Texts(store), batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert list(workers) == texts


def test_a_store_replaced_while_in_use_is_noticed(tmp_path):
    make_store(tmp_path / "s")
    pickled = pickle.dumps(ChunkStore.open(tmp_path / "s"))
    make_store(tmp_path / "s", seed=5, overwrite=True)
    with pytest.raises(UserError, match="replaced while it was in use"):
        pickle.loads(pickled)


def test_the_fingerprint_follows_the_content(tmp_path):
    fingerprints = []
    for name, seed, options in (("a", 0, {}), ("b", 0, {}), ("c", 1, {}), ("d", 0, {"chunk_size": 31})):
        (tmp_path / name).mkdir()
        make_store(tmp_path / name / "s", seed, **options)
        fingerprints.append(ChunkStore.open(tmp_path / name / "s").fingerprint)
    assert fingerprints[0] == fingerprints[1]
    assert len(set(fingerprints)) == 3


def test_many_files_need_few_descriptors(tmp_path):
    make_store(tmp_path / "s", bucket_bytes=200)
    store = ChunkStore.open(tmp_path / "s")
    assert len(store._contexts) > 30
    before = len(os.listdir("/proc/self/fd"))
    assert store.num_chunks.sum() > 0
    assert len(os.listdir("/proc/self/fd")) == before


def rewrite_manifest(folder: Path, **changes) -> None:
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    (folder / MANIFEST_NAME).write_text(json.dumps({**manifest, **changes}))


def test_what_is_no_intact_store_is_refused(tmp_path):
    folder = tmp_path / "s"
    make_store(folder)
    (tmp_path / "empty").mkdir()
    first = folder / "contexts-00000.arrow"
    content = first.read_bytes()
    refuse = functools.partial(pytest.raises, UserError)
    for path in (tmp_path / "empty", tmp_path / "none"):
        with refuse(match=r"not a store .*make one with preprocess/preshuffle_data_and_chunk\.py"):
            ChunkStore.open(path)
    with refuse(match="no store folder given"):
        ChunkStore.open([])
    first.write_bytes(content[:-1])
    with refuse(match=rf"contexts-00000\.arrow: {len(content) - 1:,} bytes, and manifest\.json says {len(content):,}"):
        ChunkStore.open(folder)
    first.unlink()
    with refuse(match=r"contexts-00000\.arrow: missing"):
        ChunkStore.open(folder)
    first.write_bytes(b"\0" * len(content))
    with refuse(match=r"contexts-00000\.arrow: damaged"):
        ChunkStore.open(folder).context_text(0)
    rewrite_manifest(folder, format_version=99)
    with refuse(match=r"format_version=99, and this program reads 1"):
        ChunkStore.open(folder)
    (folder / MANIFEST_NAME).write_text('{"format_version": 1}')
    with refuse(match=r"damaged \(it lacks files, options\)"):
        ChunkStore.open(folder)


def test_stores_chunked_differently_are_not_mixed(tmp_path):
    make_store(tmp_path / "a")
    make_store(tmp_path / "b", chunk_size=31)
    make_store(tmp_path / "c", chunk_overlap=0)
    with pytest.raises(UserError, match=r"different chunk_size .*a has 30, .*b has 31"):
        ChunkStore.open([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(UserError, match="different chunk_overlap"):
        ChunkStore.open([tmp_path / "a", tmp_path / "c"])


def test_a_store_given_twice_is_refused(tmp_path):
    make_store(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    (tmp_path / "link").symlink_to("a")
    for other in ("a", "link", "copy"):
        with pytest.raises(UserError, match=f"{other}: the same store as .*a, so every record of it would count twice"):
            ChunkStore.open([tmp_path / "a", tmp_path / other])


def test_shards_that_are_not_given_are_named(tmp_path, caplog):
    shards = [tmp_path / f"machine-{index}" / "store" for index in range(3)]
    for index, shard in enumerate(shards):
        shard.parent.mkdir()
        make_store(shard, num_shards=3, shard_index=index)
    ChunkStore.open([shards[2], shards[0]])
    assert "2 of 3 shards given; without shard_index 1, a part of the data is not read" in caplog.text
    caplog.clear()
    ChunkStore.open(shards)
    assert caplog.text == ""


def test_verify_names_the_file_that_changed(tmp_path):
    make_store(tmp_path / "s")
    store = ChunkStore.open(tmp_path / "s")
    store.verify()
    path = tmp_path / "s" / "examples-00001.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"^[^,]*examples-00001\.arrow: content differs"):
        store.verify()
