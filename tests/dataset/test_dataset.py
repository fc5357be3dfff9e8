"""Training data by step: the shares of the processes, what the rows hold, and what is cut."""

import contextlib
import json
from collections import Counter

import pytest
import torch

from dataset.batch_plan import BatchPlan, Stage
from dataset.collator import IGNORE
from dataset.dataset import RowLimits, StepDataset
from dataset.store import ChunkStore
from preprocess.preshuffle_data_and_chunk import parse_options, preshuffle
from utils.common_utils import UserError


@pytest.fixture
def store(examples_file, tmp_path) -> ChunkStore:
    return make_store(examples_file, tmp_path / "store")


def make_store(path, folder, *options: str) -> ChunkStore:
    arguments = ["--input", str(path), "--output_dir", str(folder), "--chunk_size", "40", "--num_proc", "1"]
    preshuffle(parse_options([*arguments, *options]))
    return ChunkStore.open(folder)


def make_dataset(
    store, model, stage, window=512, max_answer_tokens=100, micro_batch_size=3, **processes
) -> StepDataset:
    plan = BatchPlan(store.num_chunks, store.example_context, [stage], 0, 8, 4, prompts_per_context=2)
    limits = RowLimits(window, max_answer_tokens, model.config.num_chunk_tokens)
    templates = model.config.templates
    arguments = (store, plan, model.chunk_tokenizer, model.formatter, templates, limits, 20, micro_batch_size)
    return StepDataset(*arguments, **processes)


def test_reasoning_rows_read_their_context_and_label_their_answer(examples_file, store, model):
    lines = examples_file.read_text().splitlines()
    data = make_dataset(store, model, Stage(reasoning_share=1.0))
    decode = model.decoder_tokenizer.decode
    seen = 0
    for step in range(4):
        for batch in data[step].micro_batches:
            tensors = batch.tensors
            for row, example_id in enumerate(batch.example_ids):
                line = int(example_id.rpartition(":")[2])
                expected = json.loads(lines[line - 1])
                label_ids = tensors["labels"][row][tensors["labels"][row] != IGNORE]
                assert decode(label_ids) == expected["answer"] + "</s>"
                text = decode(tensors["input_ids"][row][tensors["attention_mask"][row].bool()])
                assert expected["prompt"] in text
                slots = int(tensors["slot_mask"][row].sum())
                assert slots == expected["context"].count("\n") + 1
                seen += 1
    assert seen > 20


def test_an_example_without_an_answer_cannot_be_trained_on(tmp_path, model):
    path = tmp_path / "hidden.jsonl"
    path.write_text('{"id": "q7", "context": "Some text.", "prompt": "p", "answer": []}\n' * 8)
    store = make_store(path, tmp_path / "store", "--unlabelled")
    with pytest.raises(UserError, match="example 'q7': has no answer to train on; .* without --unlabelled"):
        make_dataset(store, model, Stage(reasoning_share=1.0))[0]


def test_understanding_restates_exactly_the_window(store, model):
    data = make_dataset(store, model, Stage(reasoning_share=0.0, max_window_chunks=3))
    texts = [store.context_text(index) for index in range(store.num_contexts)]
    restated = set()
    for step in range(4):
        for batch in data[step].micro_batches:
            for labels in batch.tensors["labels"]:
                text = model.decoder_tokenizer.decode(labels[labels != IGNORE]).removesuffix("</s>")
                assert any(text in context for context in texts)
                restated.add(text.count("."))
    assert restated == {1, 2, 3}


def test_cued_rows_restate_the_chunk_their_prompt_names(store, model):
    stage = Stage(reasoning_share=0.0, cued_share=1.0, min_window_chunks=4, max_window_chunks=4, cued_prompts=3)
    data, again = make_dataset(store, model, stage), make_dataset(store, model, stage)
    decode = model.decoder_tokenizer.decode
    seen = 0
    for step in (3, 0):
        names = [name for batch in data[step].micro_batches for name in batch.example_ids]
        assert names == [name for batch in again[step].micro_batches for name in batch.example_ids]
        for batch in data[step].micro_batches:
            tensors = batch.tensors
            for row, name in enumerate(batch.example_ids):
                _, context, _, chunk, _, window, _, cue = name.split(" ", 7)
                chunks = store.context_chunks(int(context))
                assert holders(chunks, eval(cue)) == [int(chunk)] or data[step].counts["ambiguous_cues"]
                answer = decode(tensors["labels"][row][tensors["labels"][row] != IGNORE])
                assert answer == chunks[int(chunk)].strip() + "</s>"
                text = decode(tensors["input_ids"][row][tensors["attention_mask"][row].bool()])
                assert f"says: {eval(cue)}" in text
                assert int(tensors["slot_mask"][row].sum()) == len(chunks)
                seen += window == f"0-{len(chunks) - 1}"
    assert seen > 30


def holders(chunks, cue: str) -> list[int]:
    return [index for index, chunk in enumerate(chunks) if cue.casefold() in chunk.casefold()]


def test_cued_rows_of_a_window_are_branches_of_one_sequence(store, model):
    stage = Stage(reasoning_share=0.0, cued_share=1.0, min_window_chunks=3, max_window_chunks=3, cued_prompts=3)
    (packed,) = make_dataset(store, model, stage, micro_batch_size=24, pack=True)[0].micro_batches
    (apart,) = make_dataset(store, model, stage, micro_batch_size=24)[0].micro_batches
    assert len(make_dataset(store, model, stage, micro_batch_size=12)[0].micro_batches) == 2
    assert packed.tensors["branch_ids"].max() == 3
    assert packed.tensors["sequence_ids"].max() == 7, "eight windows"
    longest_alone = apart.tensors["input_ids"].shape[1]
    assert packed.tensors["input_ids"].shape[1] > longest_alone
    assert packed.tensors["position_ids"].max() < longest_alone, "no position is beyond the decoder's window"
    assert sorted(packed.example_ids) == sorted(apart.example_ids)
    assert packed.num_labels == apart.num_labels
    assert packed.num_decoder_tokens < apart.num_decoder_tokens
    assert packed.num_context_tokens == apart.num_context_tokens
    with torch.no_grad():
        losses = [model(batch.tensors).loss_sum.item() for batch in (packed, apart)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_ambiguous_cues_are_counted(tmp_path, model):
    path = tmp_path / "same.jsonl"
    path.write_text(json.dumps({"context": "Ada lives in Rome since the year 1950.\n" * 4}) + "\n")
    store = make_store(path, tmp_path / "store")
    stage = Stage(reasoning_share=0.0, cued_share=1.0, min_window_chunks=4, max_window_chunks=4, cued_prompts=2)
    assert make_dataset(store, model, stage)[0].counts["ambiguous_cues"] == 16


def test_overlap_is_not_restated_twice(examples_file, tmp_path, model):
    store = make_store(examples_file, tmp_path / "overlapping", "--chunk_overlap", "10")
    data = make_dataset(store, model, Stage(reasoning_share=0.0, min_window_chunks=3, max_window_chunks=3))
    texts = [store.context_text(index) for index in range(store.num_contexts)]
    for batch in data[0].micro_batches:
        for labels in batch.tensors["labels"]:
            text = model.decoder_tokenizer.decode(labels[labels != IGNORE]).removesuffix("</s>")
            assert any(text in context for context in texts)


@pytest.mark.parametrize("objective", ["understanding", "reasoning"])
def test_processes_share_the_batch(store, model, objective):
    stage = Stage(reasoning_share=float(objective == "reasoning"), max_window_chunks=3)
    alone = make_dataset(store, model, stage)
    shares = [make_dataset(store, model, stage, process_index=rank, num_processes=2) for rank in range(2)]
    for step in range(5):
        expected = alone[step]
        parts = [share[step] for share in shares]
        assert len(parts[0].micro_batches) == len(parts[1].micro_batches)
        ids = [name for part in parts for batch in part.micro_batches for name in batch.example_ids]
        assert sorted(ids) == sorted(name for batch in expected.micro_batches for name in batch.example_ids)
        labels = [sum(batch.num_labels for batch in part.micro_batches) for part in [expected, *parts]]
        assert labels[0] == labels[1] + labels[2]


def test_batch_that_cannot_be_shared_is_refused(store, model):
    message = r"data.understanding_batch_size=8: not divisible by the 3 processes.*make it a multiple, or start fewer"
    with pytest.raises(UserError, match=message):
        make_dataset(store, model, Stage(), num_processes=3)
    with pytest.raises(UserError, match=r"data\.stages\[0\]\.reasoning_batch_size=3: not divisible by the 2 processes"):
        make_dataset(store, model, Stage(reasoning_batch_size=3), num_processes=2)


def test_cuts_are_counted(store, model):
    data = make_dataset(store, model, Stage(reasoning_share=0.0, min_window_chunks=3), max_answer_tokens=5)
    counts = data[0].counts
    assert counts["truncated_answers"] == 8
    for batch in data[0].micro_batches:
        assert ((batch.tensors["labels"] != IGNORE).sum(1) == 5).all()


def test_contexts_are_trimmed_to_the_decoders_window(store, model):
    stage = Stage(reasoning_share=1.0, min_context_chunks=4)

    def longest_row(data) -> int:
        return max(batch.tensors["input_ids"].shape[1] for batch in data.micro_batches)

    wide = make_dataset(store, model, stage)
    window = max(longest_row(wide[step]) for step in range(3)) - 2
    narrow = make_dataset(store, model, stage, window=window)
    assert sum(wide[step].counts["trimmed_contexts"] for step in range(3)) == 0
    assert sum(narrow[step].counts["trimmed_contexts"] for step in range(3)) > 0
    assert max(longest_row(narrow[step]) for step in range(3)) == window
    with pytest.raises(
        UserError, match=r"examples.jsonl:\d+: its prompt of 34 and answer of 3 .* window of 20; shorten"
    ):
        make_dataset(store, model, Stage(reasoning_share=1.0), window=20)[0]


@pytest.mark.parametrize("cued_share", [0.0, 1.0])
def test_windows_too_long_for_the_decoder_are_found_before_the_training(store, model, cued_share):
    stage = Stage(reasoning_share=0.5, cued_share=cued_share, max_window_chunks=4, cued_prompts=2)
    make_dataset(store, model, stage).check_examples()
    longest = max(len(unit.rows[0].answer_ids) for unit in longest_units(store, model, stage))
    prompt = model.formatter.prompt_ids(model.config.templates["cued" if cued_share else "understanding"])
    taken = len(prompt.prefix_ids) + len(prompt.suffix_ids) + longest
    with pytest.raises(UserError, match="leave no room for a chunk|it has 4 chunks, and beside .* has room for [1-3];"):
        make_dataset(store, model, stage, window=taken + 3).check_examples()


def test_every_chunk_that_a_cue_may_name_is_tried(tmp_path, model):
    lines = ["Oslo is old.", "Rome is " + "x" * 30 + ".", "Bonn is new."] * 4
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"context": "\n".join(lines)}) + "\n")
    data = make_dataset(make_store(path, tmp_path / "long"), model, Stage(reasoning_share=0.0, cued_share=1.0))
    units = [unit for step in range(20) for unit in data.plan.batch(step).units]
    needed = max(row.length(len(unit.piece_ids)) for unit in map(tokenized(data), units) for row in unit.rows)
    for window, fits in ((needed + 4, True), (needed - 4, False)):
        tight = make_dataset(data.store, model, data.plan.stages[0], window=window)
        with contextlib.nullcontext() if fits else pytest.raises(UserError, match="no room|has room for"):
            tight.check_examples()


def tokenized(data):
    return lambda unit: data._tokenize(unit, Counter())


def longest_units(store, model, stage):
    data = make_dataset(store, model, stage)
    units = [unit for step in range(20) for unit in data.plan.batch(step).units if not unit.examples]
    return list(map(tokenized(data), units))


def test_the_longest_run_of_chunks_is_found(store):
    (index, first, end), second = store.longest_runs(2, 2)
    assert second[0] != index
    runs = [
        (len("".join(store.context_chunks(context, start, start + 2)).encode()), context, start)
        for context in range(store.num_contexts)
        for start in range(store.num_chunks[context])
    ]
    assert max(runs)[0] == len("".join(store.context_chunks(index, first, end)).encode())


def test_split_chunks_keep_their_text(examples_file, tmp_path, model):
    model.chunk_tokenizer.max_tokens = 8
    store = make_store(examples_file, tmp_path / "store")
    data = make_dataset(store, model, Stage(reasoning_share=0.0, max_window_chunks=1))[0]
    assert data.counts["split_chunks"] == 8
    for batch in data.micro_batches:
        assert len(batch.tensors["chunk_ids"]) == int(batch.tensors["slot_mask"].sum()) > len(batch.example_ids)


def test_slots_point_to_the_chunks_of_their_unit(store, model):
    data = make_dataset(store, model, Stage(reasoning_share=1.0))
    for batch in data[0].micro_batches:
        tensors = batch.tensors
        per_row = torch.split(tensors["slot_source"], tensors["slot_mask"].sum(1).tolist())
        used = torch.cat(per_row).unique()
        assert used.tolist() == list(range(len(tensors["chunk_ids"])))
        for sources in per_row:
            assert sources.tolist() == list(range(sources[0], sources[0] + len(sources)))
