"""The preprocessing script: what the store holds, that only the data, seed and options decide it, and how runs end."""

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataset.store import ChunkStore
from preprocess.parallel import ordered_map
from preprocess.preshuffle_data_and_chunk import Options, parse_options, preshuffle
from preprocess.spool import InputFile, Job, Split, spool_path, spool_split
from utils.chunking import split_into_chunks
from utils.common_utils import UserError

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "preprocess" / "preshuffle_data_and_chunk.py"
SMALL = {"chunk_size": 40, "split_bytes": 500, "bucket_bytes": 2_000}


def write_lines(path: Path, lines: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(encoded) + b"\n")
    return path


def random_records(seed: int, num_contexts: int = 40) -> list[dict]:
    rng = random.Random(seed)
    records = []
    for number in range(num_contexts):
        words = rng.choices(["alpha", "beta.", "gamma,", "文字。", "é", "\n\n", "🚀"], k=rng.randint(1, 60))
        context = f"context {number} of {seed} " + " ".join(words)
        questions = rng.choice([0, 1, 3])
        records += [{"context": context, "prompt": f"p{q}", "answer": f"a{number}"} for q in range(questions)]
        records += [] if questions else [{"context": context}]
    rng.shuffle(records)
    return records


def run(path: Path | list[Path], output_dir: Path, **options) -> tuple[ChunkStore, dict]:
    paths = (path,) if isinstance(path, Path) else tuple(path)
    manifest = preshuffle(Options(paths, output_dir, **{**SMALL, **options}))
    return ChunkStore.open(output_dir), manifest


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def examples_of(store: ChunkStore) -> list[tuple]:
    examples = map(store.example, range(store.num_examples))
    return sorted((store.context_text(e.context_index), e.prompt, *e.answers) for e in examples)


def test_everything_read_is_in_the_store(tmp_path):
    records = random_records(0)
    store, manifest = run(write_lines(tmp_path / "a.jsonl", records), tmp_path / "store")
    contexts = sorted({record["context"] for record in records})
    assert sorted(map(store.context_text, range(store.num_contexts))) == contexts
    for index in range(store.num_contexts):
        assert store.context_chunks(index) == split_into_chunks(store.context_text(index), 40)
    asked = [(r["context"], r["prompt"], r["answer"]) for r in records if "prompt" in r]
    assert examples_of(store) == sorted(asked)

    assert manifest["options"]["num_buckets"] > 2, "the case needs several buckets"
    assert manifest["read"] == {
        "lines": len(records), "blank_lines": 0, "records": len(records), "dropped_records": 0
    }  # fmt: skip
    assert manifest["written"] == {
        "contexts": len(contexts),
        "understanding_only_contexts": sum("prompt" not in record for record in records),
        "examples": len(asked),
        "characters": sum(map(len, contexts)),
        "chunks": int(store.num_chunks.sum()),
    }


def test_the_histogram_counts_chunk_lengths(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"context": "x" * 100}, {"context": "y" * 33}])
    _, manifest = run(path, tmp_path / "store", chunk_size=40)
    filled = {(each["from"], each["to"]): each["chunks"] for each in manifest["chunk_lengths"] if each["chunks"]}
    assert filled == {(19, 21): 1, (31, 33): 1, (40, 40): 2}
    assert manifest["chunk_lengths"][0]["from"] == 1


def test_a_context_is_stored_once_however_far_apart_its_prompts_are(tmp_path):
    context = "shared. " * 20
    between = random_records(1, 30)
    lines = []
    for number in range(18):
        lines += [{"context": context, "prompt": f"p{number}", "answer": "a"}, between[number]]
    first, second = write_lines(tmp_path / "a.jsonl", lines), write_lines(tmp_path / "b.jsonl", lines[:2])
    store, _ = run([first, second], tmp_path / "store")
    assert sum(store.context_text(index) == context for index in range(store.num_contexts)) == 1
    ours = [store.example(j) for j in range(store.num_examples)]
    ours = [example for example in ours if store.context_text(example.context_index) == context]
    assert [example.prompt for example in ours] == [f"p{number}" for number in range(18)] + ["p0"]
    assert [ours[1].id, ours[-1].id] == ["a.jsonl:3", "b.jsonl:1"]


def test_a_split_spools_a_context_once(tmp_path):
    context = "shared. " * 1_000
    path = write_lines(tmp_path / "a.jsonl", [{"context": context, "prompt": str(n), "answer": "a"} for n in range(18)])
    num_bytes = path.stat().st_size
    source = InputFile(path, "a.jsonl", num_bytes)
    job = Job((source,), tmp_path, tmp_path, 40, 0, 0, 3, 1, 0, True, 1 << 20)
    assert spool_split(job, Split(0, 0, 0, num_bytes)).records == 18
    assert len(context) < spool_path(job, 0).stat().st_size < 1.5 * len(context)


def test_fields_and_defaults(tmp_path):
    lines = [
        b"",
        {"context": "c", "prompt": "p", "answer": ["a", "b"], "id": 7, "task": "qa", "meta": {"k": [1]}},
        b"  ",
        {"context": "c", "prompt": "q", "answer": "a"},
    ]
    store, manifest = run(write_lines(tmp_path / "a.jsonl", lines), tmp_path / "store")
    full, plain = store.example(0), store.example(1)
    assert (full.id, full.task, full.answers, full.meta) == ("7", "qa", ["a", "b"], {"k": [1]})
    assert (plain.id, plain.task, plain.answers, plain.meta) == ("a.jsonl:4", "", ["a"], {})
    assert manifest["read"]["blank_lines"] == 2


def test_prompts_without_a_label_are_accepted_only_when_asked(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"context": "c", "prompt": "p", "answer": []}])
    with pytest.raises(UserError, match='a.jsonl:1: "answer" is empty'):
        run(path, tmp_path / "store")
    store, manifest = run(path, tmp_path / "store", unlabelled=True)
    assert store.example(0).answers == [] and manifest["options"]["unlabelled"] is True
    # What looks like a mistake is still one.
    for record in ({"context": "c", "prompt": "p"}, {"context": "c", "prompt": "p", "answer": [""]}):
        with pytest.raises(UserError, match="answer"):
            run(write_lines(path, [record]), tmp_path / "other", unlabelled=True)


def test_number_of_processes_and_size_of_splits_decide_nothing(tmp_path):
    bad = [b"{", {"context": ""}]
    inputs = [write_lines(tmp_path / f"{seed}.jsonl", random_records(seed) + bad) for seed in range(2)]
    folders = []
    for num_proc, split_bytes in ((1, 500), (3, 500), (1, 777), (1, 1 << 20)):
        folders.append(tmp_path / f"{num_proc}-{split_bytes}")
        run(inputs, folders[-1], num_proc=num_proc, split_bytes=split_bytes, on_bad_record="skip")
    assert "contexts-00001.arrow" in folder_bytes(folders[0])
    for other in folders[1:]:
        assert folder_bytes(other) == folder_bytes(folders[0])
    assert str(tmp_path) not in (folders[0] / "manifest.json").read_text()


def test_the_seed_decides_the_order_and_nothing_else(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", random_records(0))
    orders = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        store, _ = run(path, tmp_path / name, seed=seed, bucket_bytes=1 << 30)
        orders.append([store.context_digest(index) for index in range(store.num_contexts)])
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


def test_shards_share_the_contexts_out(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", random_records(0))
    whole, _ = run(path, tmp_path / "whole")
    folders = [tmp_path / f"shard{index}" for index in range(3)]
    shards = [run(path, folder, num_shards=3, shard_index=index)[0] for index, folder in enumerate(folders)]
    assert all(0 < shard.num_contexts < whole.num_contexts for shard in shards)
    together = ChunkStore.open(folders)
    assert together.num_contexts == whole.num_contexts
    assert examples_of(together) == examples_of(whole)


def test_files_of_the_same_name_are_told_apart(tmp_path):
    paths = [write_lines(tmp_path / n / "x.jsonl", [{"context": n, "prompt": "p", "answer": "a"}]) for n in "ab"]
    store, _ = run(paths, tmp_path / "store")
    assert {store.example(0).id, store.example(1).id} == {"a/x.jsonl:1", "b/x.jsonl:1"}


def test_a_byte_order_mark_is_accepted(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [b'\xef\xbb\xbf{"context": "c"}'])
    assert run(path, tmp_path / "store")[0].context_text(0) == "c"


GOOD = {"context": "good", "prompt": "p", "answer": "a"}
BAD_LINES = {
    "broken_json": b'{"context": ',
    "not_an_object": b"[1]",
    "missing_context": b'{"prompt": "p", "answer": "a"}',
    "wrong_type": b'{"context": 1}',
    "empty_context": b'{"context": " "}',
    "empty_prompt": b'{"context": "c", "prompt": "", "answer": "a"}',
    "empty_answer": b'{"context": "c", "prompt": "p", "answer": []}',
    "prompt_without_answer": b'{"context": "c", "prompt": "p"}',
    "answer_without_prompt": b'{"context": "c", "answer": "a"}',
    "invalid_utf8": b'{"context": "\xff"}',
    "lone_surrogate": rb'{"context": "\ud800"}',
    "line_too_long": b'{"context": "' + b"x" * 20_000 + b'"}',
}


@pytest.mark.parametrize("reason", BAD_LINES)
def test_a_bad_record_stops_the_run_or_is_counted(tmp_path, reason):
    lines = [GOOD] * 30 + [b"", BAD_LINES[reason], GOOD, b"[]"]
    path = write_lines(tmp_path / "bad.jsonl", lines)
    with pytest.raises(UserError, match=r"bad\.jsonl:32: .*\n.*--on_bad_record skip"):
        run(path, tmp_path / "store", max_line_mb=0.01)
    assert list(tmp_path.iterdir()) == [path], "something was left behind"

    store, manifest = run(path, tmp_path / "store", max_line_mb=0.01, on_bad_record="skip")
    assert manifest["dropped"][reason]["first"][0].startswith("bad.jsonl:32: ")
    assert sum(drop["count"] for drop in manifest["dropped"].values()) == manifest["read"]["dropped_records"] == 2
    assert (store.num_contexts, store.num_examples) == (1, 31)


def test_the_bad_record_named_is_the_first_whatever_the_processes(tmp_path):
    inputs = [write_lines(tmp_path / f"{n}.jsonl", [GOOD] * 50 + [b"["] + [GOOD] * 50 + [b"["]) for n in range(3)]
    for num_proc in (1, 3):
        with pytest.raises(UserError, match=r"0\.jsonl:51: "):
            run(inputs, tmp_path / "store", num_proc=num_proc)
    assert sorted(tmp_path.iterdir()) == inputs


def test_only_the_first_places_of_a_reason_are_listed(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [GOOD] + [b"[]"] * 300)
    _, manifest = run(path, tmp_path / "store", on_bad_record="skip")
    drop = manifest["dropped"]["not_an_object"]
    assert drop["count"] == 300
    assert [place.split(":")[1] for place in drop["first"]] == [str(line) for line in range(2, 22)]


def test_unknown_keys_are_counted(tmp_path):
    records = [{**GOOD, "answers": []}] * 3 + [{**GOOD, f"key{number}": 1} for number in range(150)]
    _, manifest = run(write_lines(tmp_path / "a.jsonl", records), tmp_path / "store")
    ignored = manifest["ignored_keys"]
    assert ignored["answers"] == 3
    assert len(ignored) == 101
    assert sum(ignored.values()) == 153


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([b"", b" "], "no usable record in 2 lines, which are all blank"),
        ([b"[]", b"[]"], r"no usable record in 2 lines \(2 not_an_object, first a.jsonl:1: "),
    ],
)
def test_an_input_without_a_usable_record_is_an_error(tmp_path, lines, message):
    with pytest.raises(UserError, match=rf"a\.jsonl: {message}"):
        run(write_lines(tmp_path / "a.jsonl", lines), tmp_path / "store", on_bad_record="skip")


def test_missing_empty_and_repeated_inputs_are_errors(tmp_path):
    good, empty = write_lines(tmp_path / "a.jsonl", [GOOD]), tmp_path / "empty.jsonl"
    empty.touch()
    (tmp_path / "rows.csv").write_text("context\nA story.\n")
    for paths, message in (
        ([tmp_path / "none.jsonl"], r"none\.jsonl: no such file"),
        ([good, empty], r"empty\.jsonl: the file is empty"),
        ([tmp_path], r"not a file"),
        ([tmp_path / "rows.csv"], r"rows\.csv: expected JSONL, found \.csv; .*convert\.py table --input .*rows\.csv"),
        ([good, tmp_path / "." / "a.jsonl"], r"a\.jsonl: given 2 times"),
    ):
        with pytest.raises(UserError, match=message):
            run(paths, tmp_path / "store")


@pytest.mark.parametrize(
    "options",
    [
        {"chunk_size": 0},
        {"chunk_overlap": -1},
        {"chunk_size": 4, "chunk_overlap": 4},
        {"num_proc": 0},
        {"max_line_mb": 0},
        {"num_shards": 0},
        {"num_shards": 2, "shard_index": 2},
        {"shard_index": -1},
    ],
)
def test_impossible_options_are_named_with_their_value(options):
    name, value = list(options.items())[-1]
    with pytest.raises(UserError, match=rf"{name}={value}\b"):
        Options((Path("a.jsonl"),), Path("store"), **options)


def test_an_existing_output_is_replaced_only_when_asked_and_only_by_a_complete_store(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [GOOD])
    run(path, tmp_path / "store")
    before = folder_bytes(tmp_path / "store")
    with pytest.raises(UserError, match="exists; choose another --output_dir, or replace it with --overwrite"):
        run(path, tmp_path / "store")
    bad = write_lines(tmp_path / "bad.jsonl", [GOOD, b"{"])
    with pytest.raises(UserError, match=r"bad\.jsonl:2"):
        run(bad, tmp_path / "store", overwrite=True)
    assert folder_bytes(tmp_path / "store") == before
    run(path, tmp_path / "store", overwrite=True, chunk_size=2)
    assert ChunkStore.open(tmp_path / "store").chunk_size == 2


def test_overwrite_removes_nothing_but_stores(tmp_path):
    precious = write_lines(tmp_path / "home" / "precious.jsonl", [GOOD])
    with pytest.raises(UserError, match=r"not a store .* --overwrite does not remove it"):
        run(precious, tmp_path / "home", overwrite=True)
    (tmp_path / "home" / "manifest.json").write_text('{"files": {"adapter.safetensors": {"bytes": 1}}}')
    with pytest.raises(UserError, match=r"not a store .*choose another --output_dir"):
        run(precious, tmp_path / "home", overwrite=True)
    assert precious.exists()
    run(precious, tmp_path / "store")
    inside = precious.rename(tmp_path / "store" / "precious.jsonl")
    with pytest.raises(UserError, match="which --overwrite would remove"):
        run(inside, tmp_path / "store", overwrite=True)
    assert inside.exists()


def test_two_runs_cannot_write_the_same_store(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [GOOD])
    with open(tmp_path / ".store.lock", "w") as other_run:
        fcntl.flock(other_run, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another run is writing it"):
            run(path, tmp_path / "store")
    run(path, tmp_path / "store")


def test_a_worker_that_dies_is_an_error():
    killed = pytest.raises(UserError, match=r"a worker process was killed.*lower --num_proc")
    with killed, ordered_map(2) as run_ordered:
        list(run_ordered(os._exit, [1, 1]))


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(SCRIPT), *map(str, arguments)]


def test_the_command_line(tmp_path):
    records = [*random_records(0), {**GOOD, "answers": "x"}, b"[]"]
    path = write_lines(tmp_path / "a.jsonl", records)
    arguments = ["--input", path, "--output_dir", tmp_path / "store", "--num_proc", 1]
    failed = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert failed.stderr.startswith(f"error: {path}:{len(records)}: expected one JSON object a line, found a list")
    assert "Traceback" not in failed.stderr

    module = [sys.executable, "-m", "preprocess.preshuffle_data_and_chunk", *map(str, arguments)]
    done = subprocess.run([*module, "--on_bad_record", "skip"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert f"dropped 1 not_an_object, first a.jsonl:{len(records)}: " in done.stdout
    assert """ignored key "answers" in 1 records. Did you mean 'answer'?""" in done.stdout
    assert f"{ChunkStore.open(tmp_path / 'store').num_contexts:,} contexts" in done.stdout


def test_every_option_of_the_command_line_arrives():
    arguments = "--input a b --output_dir d --chunk_size 9 --chunk_overlap 2 --seed 3 --num_proc 4 --on_bad_record skip"
    arguments += " --max_line_mb 5 --num_shards 7 --shard_index 6 --overwrite --unlabelled"
    expected = Options((Path("a"), Path("b")), Path("d"), 9, 2, 3, 4, "skip", 5, 7, 6, True, True)
    assert parse_options(arguments.split()) == expected


@pytest.mark.parametrize("num_proc", [1, 2])
@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_store_and_the_next_one_cleans_up(tmp_path, kill, num_proc):
    path = tmp_path / "a.jsonl"
    write_lines(path, [{"context": f"{number} " + "word " * 20_000} for number in range(300)])
    arguments = ["--input", path, "--output_dir", tmp_path / "store", "--num_proc", num_proc]
    process = subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob(".store.partial/spool/*")):
        assert process.poll() is None, "the run ended before it could be interrupted"
        time.sleep(0.005)
    process.send_signal(kill)
    error = process.communicate(timeout=20)[1]
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[kill]
    assert "Traceback" not in error
    assert not (tmp_path / "store").exists()
    if kill != signal.SIGKILL:
        assert list(tmp_path.iterdir()) == [path]

    small = write_lines(tmp_path / "b.jsonl", [GOOD])
    run(small, tmp_path / "store")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl", "store"]
    assert "spool" not in folder_bytes(tmp_path / "store")
