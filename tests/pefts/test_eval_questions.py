"""What each mode gives the decoder to read."""

import pytest

from model.checkpoint import save_model, write_manifest
from model.pro_model import E2LLM
from pefts.e2llm_evaluator import Evaluator
from pefts.eval_questions import LONGEST
from tests.conftest import build_model
from tests.pefts.conftest import evaluator_of, fresh, predictions_of, town_records, write_store
from utils.common_utils import UserError


def test_closed_book_reads_no_chunk_tokens(make_eval_config):
    evaluator = evaluator_of(make_eval_config("--modes", '["model", "closed_book"]'))
    records = predictions_of(evaluator)
    assert [record["mode"] for record in records] == ["model"] * 16 + ["closed_book"] * 16
    for record in records[16:]:
        assert record["num_chunk_tokens"] == record["context_positions"] == 0
        assert record["num_chunks"] > 0, "the context has chunks, read or not"
        empty = evaluator.model.encode_context("")
        assert record["prediction"] == evaluator.model.generate([record["prompt"]], empty, max_new_tokens=6)[0]
    by_prompt = [{record["prompt"]: record["prediction"] for record in part} for part in (records[:16], records[16:])]
    assert by_prompt[0] != by_prompt[1]


def test_examples_are_asked_with_the_template_of_their_task(model_config, make_eval_config, checkpoint, tmp_path):
    templates = {"loud": "{context}\n{prompt}!!!", "quiet": "{context} {prompt}"}
    model_config.templates |= templates
    save_model(build_model(model_config), fresh(tmp_path / "templates"))
    write_manifest(tmp_path / "templates")
    records = [record | {"task": task} for record, task in zip(town_records(4), ["loud", "quiet"] * 4, strict=True)]
    store = write_store(tmp_path / "mixed", records)
    config = make_eval_config("--checkpoint", str(tmp_path / "templates"), data=[str(store)])
    evaluator = evaluator_of(config)
    texts = {context["prompt"]: context for context in records}
    for record in predictions_of(evaluator):
        context = evaluator.model.encode_context(texts[record["prompt"]]["context"])
        template = templates[texts[record["prompt"]]["task"]]
        (answer,) = evaluator.model.generate([record["prompt"]], context, template=template, max_new_tokens=6)
        assert record["prediction"] == answer
    (tmp_path / "own.txt").write_text("{prompt} {context} {prompt}")
    with pytest.raises(UserError, match=r"prompt_file='.*own.txt': the template holds {prompt} 2 times"):
        evaluator_of(make_eval_config(prompt_file=str(tmp_path / "own.txt")))


def test_a_context_beyond_the_window_is_refused_trimmed_or_read_with_scaled_rope(
    make_eval_config, model_config, tmp_path
):
    model_config.decoder_max_tokens = 64
    folder = fresh(tmp_path / "narrow")
    save_model(build_model(model_config), folder)
    write_manifest(folder)
    long = "\n".join(record["context"] for record in town_records(24))
    store = write_store(tmp_path / "long", [{"context": long, "prompt": "Who?", "answer": "Ada"}])
    options = (
        "--checkpoint",
        str(folder),
        "--modes",
        '["model", "full", "truncate_middle", "truncate_to_budget_tail"]',
    )
    refused = r"task 'towns', id 'long.jsonl:1': .* takes \d+ chunk tokens, .* window of 64; pass --long_contexts trim"
    with pytest.raises(UserError, match=refused):
        evaluator_of(make_eval_config(*options, data=[str(store)]))
    config = make_eval_config(*options, "--long_contexts", "trim", data=[str(store)])
    by_mode = {record["mode"]: record for record in predictions_of(evaluator_of(config))}
    model, full = by_mode["model"], by_mode["full"]
    assert model["trimmed_chunk_tokens"] == model["num_chunks"] - model["num_chunk_tokens"] > 0
    assert model["decoder_positions"] + 6 == 64
    # The decoder alone has its own window, which E2LLM's limit leaves as it is.
    assert full["context_positions"] == full["context_tokens"] > 512
    assert full["rope_factor"] * 512 >= full["decoder_positions"] + 6 > full["rope_factor"] * 256
    assert by_mode["truncate_middle"]["decoder_positions"] + 6 == 512
    assert by_mode["truncate_to_budget_tail"]["decoder_positions"] + 6 == 64, "the budget is what the model takes"


def test_what_does_not_fit_is_refused_before_the_first_answer(make_eval_config, model_config, checkpoint, tmp_path):
    model_config.decoder_max_tokens = 64
    folder = fresh(tmp_path / "narrow")
    save_model(build_model(model_config), folder)
    write_manifest(folder)
    options = ("--checkpoint", str(folder))
    records = town_records(2)
    fits = write_store(tmp_path / "fits", records)
    evaluator_of(make_eval_config(*options, data=[str(fits)])).files.unlock()
    # Few chunks, and a prompt that leaves no room for them.
    prompt = write_store(tmp_path / "prompt", [*records, records[3] | {"prompt": "Who " * 40}])
    with pytest.raises(UserError, match=r"task 'towns', id '.*': prompt and answer leave no room .* window of 64"):
        evaluator_of(make_eval_config(*options, data=[str(prompt)]))
    # As many chunks as there is room for, each of several pieces of the encoder's.
    pieces = write_store(tmp_path / "pieces", [records[0] | {"context": "9 # 8 % 7 & 6 ! 5 ? 4 = 3 + 2 1\n" * 24}])
    evaluator = evaluator_of(make_eval_config(*options, "--overwrite", "true", data=[str(pieces)]))
    evaluator.files.unlock()
    model_config.encoder_max_tokens = 8
    small = fresh(tmp_path / "small")
    save_model(build_model(model_config), small)
    write_manifest(small)
    with pytest.raises(UserError, match=r"task 'towns', id '.*': the context takes \d+ chunk tokens, .*window of 64"):
        evaluator_of(make_eval_config("--checkpoint", str(small), "--overwrite", "true", data=[str(pieces)]))


def test_a_rope_that_cannot_be_scaled_is_refused_where_a_context_needs_it(make_eval_config, tmp_path):
    long = "\n".join(record["context"] for record in town_records(24))
    stores = [
        write_store(tmp_path / name, [{"context": context, "prompt": "Who?", "answer": "Ada"}])
        for name, context in (("long", long), ("short", long[:80]))
    ]
    for store, refused in zip(stores, (True, False), strict=True):
        config = make_eval_config("--modes", '["full"]', data=[str(store)])
        model = E2LLM.from_pretrained(config.checkpoint)
        model.causal_lm.get_decoder().config.rope_parameters["rope_type"] = "llama3"
        if refused:
            with pytest.raises(UserError, match="modes: full: .* with RoPE 'llama3' cannot be scaled by YaRN"):
                Evaluator(config, model)
        else:
            Evaluator(config, model)


def test_a_context_of_more_pieces_than_expected_is_named_with_the_way_out(make_eval_config, model_config, tmp_path):
    model_config.decoder_max_tokens = 64
    model_config.encoder_max_tokens = 8
    folder = fresh(tmp_path / "narrow")
    save_model(build_model(model_config), folder)
    write_manifest(folder)
    # More chunks, each of one token, than the last context has, whose chunks take several pieces.
    words = [{"context": ("ξ" * 39 + "\n") * 10 + "ξ" * n, "prompt": f"Who is {n}?"} for n in range(LONGEST)]
    dense = {"context": ("9#8%7&6!5?4=3+2-1*" * 2 + "9#8\n") * 9, "prompt": "Who?"}
    records = [record | {"answer": "Ada"} for record in (*words, dense)]
    store = write_store(tmp_path / "mixed", records)
    evaluator = evaluator_of(make_eval_config("--checkpoint", str(folder), data=[str(store)]))
    match = rf"task 'towns', id 'mixed.jsonl:{len(records)}': .* decoder positions of 64; pass --long_contexts trim"
    with pytest.raises(UserError, match=match):
        evaluator.run()


def test_the_baselines_template_is_theirs_alone(make_eval_config, tmp_path):
    (tmp_path / "base.txt").write_text("Read this: {context}\nNow answer at length: {prompt}")
    plain = predictions_of(
        evaluator_of(make_eval_config("--modes", '["model", "full"]', "--output_dir", str(tmp_path / "plain")))
    )
    config = make_eval_config("--modes", '["model", "full"]', baseline_prompt_file=str(tmp_path / "base.txt"))
    told = predictions_of(evaluator_of(config))
    lengths = [
        {record["id"]: record["decoder_positions"] for record in records if record["mode"] == mode}
        for mode in ("model", "full")
        for records in (plain, told)
    ]
    assert lengths[0] == lengths[1]
    assert all(lengths[3][key] > lengths[2][key] for key in lengths[2])
