"""What an evaluation takes on: data that fit, units within their bounds, modes."""

import json

import pytest

from pefts.eval_questions import check_files
from tests.pefts.conftest import by_id, evaluator_of, predictions_of, town_records, write_store
from utils.common_utils import UserError


def test_data_that_do_not_fit_are_refused(make_eval_config, tmp_path, validation_store):
    wide = write_store(tmp_path / "wide", town_records(2), "--chunk_size", "50")
    bare = write_store(tmp_path / "bare", [{"context": "No prompt here."}])
    twice = write_store(tmp_path / "twice", [record | {"id": "same"} for record in town_records(1)])
    source = validation_store.with_suffix(".jsonl")
    namesake = write_store(tmp_path / validation_store.name, town_records(1, seed=9))
    for data, message in (
        (
            [wide],
            r"tasks\[0\].data=.*chunked with \(size, overlap\) \(50, 0\), and the model was trained with \(40, 0\)",
        ),
        (
            [source],
            rf"preshuffle_data_and_chunk.py --input {source} --output_dir STORE --chunk_size 40 --chunk_overlap 0",
        ),
        ([bare], r"tasks\[0\].data=.*: holds no prompt to answer"),
        ([twice], r"2 examples have the id 'same'; give each its own `id`"),
        ([validation_store, namesake], r"2 examples have the id 'store.jsonl:\d+'"),
    ):
        with pytest.raises(UserError, match=message):
            evaluator_of(make_eval_config(data=[str(path) for path in data]))
    assert not (tmp_path / "eval").exists()


def test_files_are_looked_at_before_the_model_is_loaded(make_eval_config, model_config, tmp_path):
    check_files(make_eval_config(), model_config)
    nowhere = str(tmp_path / "nowhere")
    for arguments, message in (
        (("--reconstruction.data", json.dumps([nowhere])), r"reconstruction.data='/.*nowhere': no such folder"),
        (("--data", nowhere), r"tasks\[0\].data='/.*nowhere': no such folder"),
        (("--prompt_file", nowhere), r"tasks: prompt_file='/.*nowhere': no such file"),
    ):
        key, value = arguments
        config = make_eval_config(*arguments) if "." in key else make_eval_config()
        if "." not in key:
            name = key.removeprefix("--")
            setattr(config.tasks[0], name, [value] if name == "data" else value)
        with pytest.raises(UserError, match=message):
            check_files(config, model_config)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--modes", '["model", "model"]'), r"modes=\['model', 'model'\]: names one twice"),
        (("--sampling.temperature", "0.7"), "sampling.temperature=0.7: takes sampling.do_sample=true"),
    ],
)
def test_options_that_make_no_sense_are_refused(make_eval_config, arguments, message):
    with pytest.raises(UserError, match=message):
        make_eval_config(*arguments)


def test_units_bound_prompts_and_chunk_tokens(make_eval_config):
    for options, largest in ((("--batch_size", "5"), 5), (("--batch_size", "50", "--max_positions", "3"), 50)):
        evaluator = evaluator_of(make_eval_config(*options, "--overwrite", "true"))
        examples, num_chunks = evaluator.plan.examples["towns"], evaluator.plan.stores["towns"].num_chunks
        assert sorted(c for unit in evaluator.plan.units for c in unit.contexts) == sorted(examples)
        for unit in evaluator.plan.units:
            assert sum(len(examples[context]) for context in unit.contexts) <= largest
            chunks = sum(int(num_chunks[context]) for context in unit.contexts)
            assert chunks <= evaluator.config.max_positions or len(unit.contexts) == 1
        assert len(evaluator.plan.units) > 2
        evaluator.files.unlock()


def test_max_contexts_takes_the_first_ones_and_more_can_be_added(make_eval_config):
    first = by_id(predictions_of(evaluator_of(make_eval_config(max_contexts=3))))
    assert len(first) == 6
    assert len({record["context_chars"] for record in first.values()}) <= 3
    every = by_id(predictions_of(evaluator_of(make_eval_config())))
    assert len(every) == 16
    assert first.items() <= every.items()


def test_a_task_may_have_modes_of_its_own(make_eval_config):
    config = make_eval_config("--modes", '["model", "full"]', modes=["closed_book"])
    assert {record["mode"] for record in predictions_of(evaluator_of(config))} == {"closed_book"}
