"""From a config to a trainer: what is checked before anything is trained."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch

from model.pro_model import E2LLM
from pefts import run_setup
from pefts.agreement import AgreedError
from pefts.run_setup import check_agreement, write_config
from tests.pefts.conftest import metric_lines, stop_after, town_records, trainer_of, write_store
from utils.common_utils import UserError


def weights_of(trainer) -> dict[str, torch.Tensor]:
    return {name: parameter for name, parameter in trainer.bare_model.named_parameters() if parameter.requires_grad}


def test_the_seed_decides_the_start_and_the_data(make_config):
    one, same, other = (trainer_of(make_config("--seed", seed)) for seed in ("3", "3", "4"))
    assert all(torch.equal(weight, weights_of(same)[name]) for name, weight in weights_of(one).items())
    assert any(not torch.equal(weight, weights_of(other)[name]) for name, weight in weights_of(one).items())
    assert one.train_data.plan.batch(0) == same.train_data.plan.batch(0) != other.train_data.plan.batch(0)
    # Runs are compared on the same held-out batches, whatever their seed.
    for objective, data in one.validation_data.items():
        assert data.plan.batch(0) == other.validation_data[objective].plan.batch(0)


def test_validation_is_of_the_trained_objectives_and_the_last_stage(make_config):
    stages = [{"steps": 2, "reasoning_share": 0.0}, {"reasoning_share": 1.0, "max_context_chunks": 2}]
    trainer = trainer_of(make_config("--data.stages", json.dumps(stages)))
    assert set(trainer.validation_data) == {"understanding", "reasoning"}
    plan = trainer.validation_data["reasoning"].plan
    assert all(plan.num_chunks[unit.context] <= 2 for unit in plan.batch(0).units)
    trainer = trainer_of(make_config("--data.stages", '[{"reasoning_share": 1.0}]'))
    assert set(trainer.validation_data) == {"reasoning"}


def test_cued_steps_are_trained_logged_and_validated_by_themselves(make_config):
    stage = {"reasoning_share": 0.0, "cued_share": 0.5, "min_cued_chunks": 2, "max_cued_chunks": 3, "cued_prompts": 2}
    config = make_config("--data.stages", json.dumps([stage]), "--num_steps", "4")
    trainer = trainer_of(config)
    assert set(trainer.validation_data) == {"cued", "understanding"}
    plan = trainer.validation_data["cued"].plan
    assert all(unit.num_cues == 2 for step in range(3) for unit in plan.batch(step).units if unit.end_chunk > 1)
    trainer.train()
    lines = metric_lines(config.output_dir)
    assert {(line["split"], line["objective"]) for line in lines} == {
        (split, objective) for split in ("train", "validation") for objective in ("cued", "understanding")
    }
    assert all(line["loss"] > 0 for line in lines)


def test_validation_goes_through_its_data_once_at_most(make_config):
    trainer = trainer_of(make_config("--data.num_validation_batches", "99"))
    reasoning = trainer.validation_data["reasoning"]
    # Eight documents with two prompts each, in batches of four documents.
    assert len(reasoning) == 2
    examples = [example for step in range(2) for unit in reasoning.plan.batch(step).units for example in unit.examples]
    assert sorted(examples) == list(range(16))


def test_ridge_start_explains_something(make_config, caplog):
    caplog.set_level("INFO", "pefts")
    arguments = ("--adapter_init.method", "ridge", "--adapter_init.num_texts", "50")
    fitted, random = trainer_of(make_config(*arguments)), trainer_of(make_config())
    assert "on 50 chunks" in caplog.text
    projection = "chunk_encoder.adapter.projection.weight"
    assert not torch.equal(weights_of(fitted)[projection], weights_of(random)[projection])


def test_resume_none_refuses_a_folder_with_checkpoints(make_config):
    trainer_of(make_config("--resume", "none")).save()
    with pytest.raises(
        UserError, match=r"resume=none: .*run/checkpoints holds checkpoints already; remove them, choose"
    ):
        trainer_of(make_config("--resume", "none"))


def test_resume_from_a_path(make_config, finished_run, tmp_path):
    checkpoint = finished_run / "checkpoints/step-000006"
    trainer = trainer_of(make_config("--resume", str(checkpoint)))
    assert trainer.step == 6
    # The best of the other run is not here, so this run has none yet.
    assert trainer.best_step is None
    trainer.train()
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == ["best", "latest", "step-000007"]
    # Once it has checkpoints of its own, an older one would leave two histories in one folder.
    with pytest.raises(UserError, match=r"step-000006'.*holds another newest checkpoint, step-000007; continue from"):
        trainer_of(make_config("--resume", str(checkpoint)))
    assert trainer_of(make_config("--resume", str(tmp_path / "run/checkpoints/latest"))).step == 7


def test_resume_from_a_path_on_other_data(make_config, finished_run, validation_store):
    checkpoint = finished_run / "checkpoints/step-000006"
    arguments = ("--resume", str(checkpoint), "--data.train", json.dumps([str(validation_store)]))
    with pytest.raises(UserError, match="name the stores it was trained on, or start anew with --resume none"):
        trainer_of(make_config(*arguments))


@pytest.mark.parametrize(
    ("resume", "message"),
    [
        ("/no/such/folder", r"resume='/no/such/folder': no such folder; use auto, none or a checkpoint's path"),
        ("{tmp_path}", r"resume='/.*': /.*: no checkpoint here \(it has no e2llm_config.json\)"),
    ],
)
def test_resume_from_no_checkpoint(make_config, tmp_path, resume, message):
    with pytest.raises(UserError, match=message):
        trainer_of(make_config("--resume", resume.format(tmp_path=tmp_path)))


def test_a_damaged_newest_checkpoint_is_passed_over(make_config, tmp_path, caplog):
    stop_after(trainer_of(make_config()), 6)
    file = tmp_path / "run/checkpoints/step-000006/optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    trainer = trainer_of(make_config())
    assert trainer.step == 4
    assert "skipping the checkpoint of step 6" in caplog.text
    assert "optimizer.safetensors: damaged" in caplog.text


def test_another_model_is_refused_by_key(make_config):
    trainer_of(make_config()).save()
    arguments = ("--model.decoder_lora_rank", "3", "--model.adapter", "mean_mlp")
    with pytest.raises(UserError) as caught:
        trainer_of(make_config(*arguments))
    message = str(caught.value)
    assert "is of another model" in message
    assert "model.decoder_lora_rank: saved 2, now 3" in message
    assert "model.adapter: saved 'pma', now 'mean_mlp'" in message
    assert "encoder_lora_rank" not in message


def test_the_decoders_own_window_comes_from_a_file_and_makes_no_other_model(make_config, backbones, tmp_path):
    older = trainer_of(make_config())
    older.save()
    assert older.bare_model.native_decoder_window == 512
    (tmp_path / "windows.json").write_text(json.dumps({backbones[1]: 256}))
    arguments = ("--model_windows", str(tmp_path / "windows.json"), "--model.decoder_max_tokens", "128")
    config = make_config(*arguments, "--output_dir", str(tmp_path / "other"))
    model = trainer_of(config).bare_model
    assert (model.native_decoder_window, model.decoder_window) == (256, 128)
    same = dataclasses.replace(older.bare_model.config, decoder_native_window=256)
    run_setup.check_same_model(same, tmp_path / "run/checkpoints/step-000000")


def test_another_chunk_size_is_refused(make_config, tmp_path):
    store = write_store(tmp_path / "wide", town_records(), "--chunk_size", "50")
    with pytest.raises(UserError, match=r"model.chunk_size=40: the store data.train=.* was made with chunk_size=50"):
        trainer_of(make_config("--data.train", json.dumps([str(store)])))
    with pytest.raises(
        UserError, match=r"model.chunk_size=40: the store data.validation=.* was made with chunk_size=50"
    ):
        trainer_of(make_config("--data.validation", json.dumps([str(store)])))


def test_a_run_can_start_with_the_weights_of_another_on_other_data(
    make_config, finished_run, validation_store, tmp_path
):
    checkpoint = finished_run / "checkpoints/step-000006"
    (tmp_path / "restate.txt").write_text("Say it again:\n{context}")
    changed = ("--model.lora_dropout", "0.2", "--data.prompt_files.understanding", str(tmp_path / "restate.txt"))
    arguments = ("--init_from", str(checkpoint), "--data.train", json.dumps([str(validation_store)]), *changed)
    trainer = trainer_of(make_config(*arguments, "--optim.learning_rate", "1e-3"))
    assert trainer.step == 0
    saved = E2LLM.from_pretrained(checkpoint)
    started = weights_of(trainer)
    for name, weight in saved.state_dict().items():
        if "lora_" in name or "adapter" in name:
            assert torch.equal(started[name], weight), name
    trainer.train()
    # Resumed, it goes on with its own checkpoint, whatever has become of the other.
    gone = ("--init_from", str(tmp_path / "gone"), *arguments[2:])
    assert trainer_of(make_config(*gone, "--optim.learning_rate", "1e-3")).step == 7
    with pytest.raises(UserError, match=r"init_from='/.*': /.*: no checkpoint here"):
        trainer_of(make_config("--init_from", str(tmp_path), "--output_dir", str(tmp_path / "a")))
    with pytest.raises(UserError, match=r"step-000006 is of another model \(model.pma_heads: saved 4, now 2\)"):
        trainer_of(
            make_config("--init_from", str(checkpoint), "--model.pma_heads", "2", "--output_dir", str(tmp_path / "b"))
        )


def test_training_examples_are_checked_before_the_training(make_config, tmp_path):
    records = town_records(8)
    stages = ("--data.stages", '[{"steps": 5, "reasoning_share": 0.0}, {"reasoning_share": 1.0}]')
    unlabelled = write_store(
        tmp_path / "unlabelled", [*records, records[0] | {"answer": [], "prompt": "Who?"}], "--unlabelled"
    )
    with pytest.raises(UserError, match=r"example '.*': has no answer to train on"):
        trainer_of(make_config("--data.train", json.dumps([str(unlabelled)]), *stages))
    trainer_of(
        make_config("--data.train", json.dumps([str(unlabelled)]), "--data.stages", '[{"reasoning_share": 0.0}]')
    )
    long = write_store(tmp_path / "long", [*records, records[0] | {"prompt": "Who lives there? " * 50}])
    with pytest.raises(UserError, match=r"its prompt of \d{3} and answer .* in a window of 100; shorten the prompt"):
        trainer_of(make_config("--data.train", json.dumps([str(long)]), "--model.decoder_max_tokens", "100", *stages))


def test_prompts_that_no_stage_takes_are_counted(make_config, caplog):
    stages = '[{"steps": 2, "reasoning_share": 0.0}, {"reasoning_share": 1.0, "max_context_chunks": 2}]'
    trainer = trainer_of(make_config("--data.stages", stages))
    store = trainer.train_data.store
    outside = int((store.num_chunks[store.example_context] > 2).sum())
    assert 0 < outside < store.num_examples
    assert f"{outside} of the {store.num_examples} prompts are about contexts of lengths that no stage" in caplog.text


def test_what_is_no_store_is_named_with_its_key(make_config, tmp_path):
    (tmp_path / "data.jsonl").touch()
    for path, message in (("nowhere", "no such folder: python"), ("data.jsonl", "a file; chunk it first: python")):
        with pytest.raises(UserError, match=rf"data.train='/.*{path}': {message} preprocess.*--chunk_size 40"):
            trainer_of(make_config("--data.train", json.dumps([str(tmp_path / path)])))


def test_validation_examples_are_checked_before_the_training(make_config, tmp_path):
    records = [record | {"answer": []} for record in town_records(8)]
    store = write_store(tmp_path / "unlabelled", records, "--unlabelled")
    with pytest.raises(UserError, match=r"data\.validation: example '.*': has no answer to train on"):
        trainer_of(make_config("--data.validation", json.dumps([str(store)])))


def test_validation_data_without_fitting_prompts_are_named(make_config, tmp_path):
    short = [record for record in town_records(8, seed=2) if "\n" not in record["context"]]
    store = write_store(tmp_path / "short", short)
    stages = [{"steps": 2, "reasoning_share": 0.0}, {"reasoning_share": 1.0, "min_context_chunks": 3}]
    arguments = ("--data.stages", json.dumps(stages), "--data.validation", json.dumps([str(store)]))
    with pytest.raises(UserError) as caught:
        trainer_of(make_config(*arguments))
    message = str(caught.value)
    assert message.startswith(f"data.validation=['{store}']: no prompt in it is about a context of 3 to any number of")
    assert "as the last stage, data.stages[1], answers; add such contexts" in message


def test_prompt_files_are_read_and_checked(make_config, tmp_path):
    (tmp_path / "good.txt").write_text("Read {context} and answer {prompt}\n")
    (tmp_path / "bad.txt").write_text("{prompt}")
    (tmp_path / "latin.txt").write_bytes(b"{context} {prompt} \xe9")

    def templates(**files):
        trainer = trainer_of(make_config("--data.prompt_files", json.dumps({k: str(v) for k, v in files.items()})))
        return trainer.bare_model.config.templates

    assert templates(qa=tmp_path / "good.txt")["qa"] == "Read {context} and answer {prompt}"
    for name, message in (
        ("bad.txt", r"data.prompt_files.qa='.*bad.txt': the template holds {context} 0 times"),
        ("latin.txt", r"data.prompt_files.qa='.*latin.txt': not valid UTF-8"),
        ("missing.txt", r"data.prompt_files.qa='.*missing.txt': no such file"),
    ):
        with pytest.raises(UserError, match=message):
            templates(qa=tmp_path / name)


def test_a_template_of_no_task_is_reported(make_config, tmp_path, caplog):
    store = write_store(tmp_path / "tasks", [record | {"task": "town_qa"} for record in town_records()])
    (tmp_path / "a.txt").write_text("Read {context} and answer {prompt}")
    (tmp_path / "b.txt").write_text("Restate {context}")
    files = {task: str(tmp_path / "a.txt") for task in ("town_qa", "town_aq", "default", "cued")}
    files["understanding"] = str(tmp_path / "b.txt")
    arguments = ("--data.train", json.dumps([str(store)]), "--data.prompt_files", json.dumps(files))
    trainer_of(make_config(*arguments, validation=False))
    messages = [record.getMessage() for record in caplog.records if "prompt_files" in record.getMessage()]
    assert len(messages) == 1
    assert messages[0].startswith("data.prompt_files.town_aq is not used: no example in data.train or data.validation")
    assert "Did you mean 'town_qa'? It can be one of cued, default, town_qa, understanding" in messages[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--optim.num_warmup_steps", "7"),
            "optim.num_warmup_steps=7: must be below num_steps=7, or the learning rates would never reach their peak",
        ),
        (
            ("--checkpoint.early_stopping_patience", "2", "--data.validation", "[]"),
            "checkpoint.early_stopping_patience=2: there is nothing to validate on; name stores in data.validation",
        ),
    ],
)
def test_options_that_could_do_nothing_are_refused(make_config, arguments, message):
    with pytest.raises(UserError, match=message):
        make_config(*arguments)


def test_layers_with_lora_come_from_a_file_by_model_type(make_config, tmp_path):
    trainer = trainer_of(make_config())
    assert trainer.bare_model.config.decoder_lora_targets[:2] == ["q_proj", "k_proj"]
    path = tmp_path / "modules.json"
    path.write_text(json.dumps({"encoder": {"bert": ["query"]}, "decoder": {"gpt2": ["c_attn"]}}))
    with pytest.raises(UserError, match=r"modules.json: no entry decoder.llama; add one, or name the layers in model"):
        trainer_of(make_config("--lora_modules", str(path)))
    arguments = ("--lora_modules", str(path), "--model.decoder_lora_targets", '["q_proj"]')
    config = trainer_of(make_config(*arguments)).bare_model.config
    assert (config.encoder_lora_targets, config.decoder_lora_targets) == (["query"], ["q_proj"])


def identity_of(config, monkeypatch) -> dict:
    """What the processes of a run compare."""
    seen = []
    with monkeypatch.context() as patch:
        patch.setattr(run_setup, "check_agreement", lambda _accelerator, identity, _output_dir: seen.append(identity))
        trainer_of(config)
    return seen[0]


def test_what_processes_must_agree_on(make_config, tmp_path, validation_store, monkeypatch):
    def differing(*arguments: str) -> set[str]:
        other = identity_of(make_config(*arguments), monkeypatch)
        return {key for key in base | other if base.get(key) != other.get(key)}

    base = identity_of(make_config(), monkeypatch)
    elsewhere = tmp_path / "other/name"
    elsewhere.parent.mkdir()
    elsewhere.symlink_to(validation_store)
    assert not differing("--data.validation", json.dumps([str(elsewhere)]), "--output_dir", str(tmp_path / "elsewhere"))
    assert differing("--data.train", json.dumps([str(validation_store)])) == {"content of data.train"}
    assert differing("--data.validation", "[]", "--seed", "1") == {"content and batches of data.validation", "seed"}
    assert differing("--compute.dtype", "bfloat16") == {"compute.dtype", "number format"}
    stop_after(trainer_of(make_config()), 3)
    assert differing() == {"step to continue from", "checkpoint's manifest"}


def test_processes_that_do_not_agree_are_refused(monkeypatch):
    identities = [{"step to continue from": step, "number format": "torch.float32"} for step in (500, 0, 500)]
    monkeypatch.setattr(run_setup, "gather_object", lambda _mine: identities)
    accelerator = SimpleNamespace(num_processes=3)
    with pytest.raises(AgreedError) as caught:
        check_agreement(accelerator, identities[0], "outputs/run")
    message = str(caught.value)
    assert "step to continue from: 500 on rank 0, 2 but 0 on rank 1. Start them" in message
    assert "number format" not in message
    assert "let all see the same stores and the same output_dir='outputs/run'" in message
    identities[1]["step to continue from"] = 500
    check_agreement(accelerator, identities[0], "outputs/run")


def test_the_resolved_config_is_written(make_config, tmp_path, monkeypatch):
    config = make_config("--optim.learning_rate", "0.25")
    write_config(config, "DDP", 2)
    content = json.loads((tmp_path / "run/config.json").read_text())
    assert content["config"]["optim"]["learning_rate"] == 0.25
    assert content["config"]["optim"]["beta2"] == 0.999
    assert content["launch"] == {"engine": "DDP", "num_processes": 2}
    assert content["versions"]["torch"] == torch.__version__

    def no_git(*_arguments, **_options):
        raise FileNotFoundError("git")

    monkeypatch.setattr(run_setup.subprocess, "run", no_git)
    write_config(config, "DDP", 2)
    assert json.loads((tmp_path / "run/config.json").read_text())["git_revision"] is None
