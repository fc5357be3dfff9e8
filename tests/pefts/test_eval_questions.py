"""What each mode gives the decoder to read."""

import pytest

from model.checkpoint import save_model, write_manifest
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
    with pytest.raises(
        UserError, match=r"tasks\[0\].data=.* takes \d+ chunk tokens, .* window of 64; pass --long_cont"
    ):
        evaluator_of(make_eval_config(*options, data=[str(store)]))
    config = make_eval_config(*options, "--long_contexts", "trim", data=[str(store)])
    by_mode = {record["mode"]: record for record in predictions_of(evaluator_of(config))}
    model, full = by_mode["model"], by_mode["full"]
    assert model["trimmed_chunk_tokens"] == model["num_chunks"] - model["num_chunk_tokens"] > 0
    assert model["decoder_positions"] + 6 == 64
    assert full["context_positions"] == full["context_tokens"] > 64
    assert full["rope_factor"] * 64 >= full["decoder_positions"] + 6 > full["rope_factor"] * 32
    for mode in ("truncate_middle", "truncate_to_budget_tail"):
        assert by_mode[mode]["decoder_positions"] + 6 == 64, "the budget exceeds the window too"


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
