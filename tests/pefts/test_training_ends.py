"""How a training ends before its last step: losses that are not finite, early stopping, signals, faults."""

import errno
import json
import math
import multiprocessing
import signal

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from dataset.dataset import StepDataset
from pefts import checkpoints as checkpoints_module
from pefts.agreement import AgreedError
from tests.pefts.conftest import PowerCut, metric_lines, results, scripted, trained_weights, trainer_of
from utils.common_utils import UserError

NO_DROPOUT = ("--model.lora_dropout", "0", "--model.encoder_dropout", "0")


def test_a_loss_that_is_not_finite_stops_before_the_update(make_config):
    trainer = trainer_of(make_config())
    trainer.train_step(trainer.train_data[0])
    data = trainer.train_data[1]
    with torch.no_grad():
        trainer.bare_model.chunk_encoder.adapter.seeds[0, 0] = math.nan
    before, steps = trained_weights(trainer), optimizer_steps(trainer)
    with pytest.raises(FloatingPointError) as caught:
        trainer.train_step(data)
    message = str(caught.value)
    assert message.startswith(f"step 1 ({data.objective}): the loss is nan; nothing was updated.")
    assert all(example_id in message for example_id in data.micro_batches[0].example_ids)
    assert trainer.step == 1
    assert optimizer_steps(trainer) == steps == {1}
    for name, weight in trained_weights(trainer).items():
        assert torch.equal(weight.nan_to_num(7.0), before[name].nan_to_num(7.0)), name


def optimizer_steps(trainer) -> set[int]:
    return {int(state["step"]) for state in trainer.engine.optimizer.state.values()}


def test_a_gradient_that_is_not_finite_stops_too(make_config):
    trainer = trainer_of(make_config())
    data = trainer.train_data[0]
    before = trained_weights(trainer)
    trainer.bare_model.chunk_encoder.adapter.projection.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(
        FloatingPointError, match=r"step 0 \(understanding\): the gradient's norm is .*context \d+ chunk"
    ):
        trainer.train_step(data)
    assert all(torch.equal(weight, before[name]) for name, weight in trained_weights(trainer).items())


def test_early_stopping_leaves_a_checkpoint_and_stays_stopped(make_config, tmp_path, caplog):
    arguments = ("--checkpoint.validate_every", "1", "--checkpoint.save_every", "100")
    patient = (*arguments, "--checkpoint.early_stopping_patience")
    trainer = scripted(trainer_of(make_config(*patient, "2")), [5.0, 4.0, 4.5, 4.1, 1.0])
    trainer.train()
    assert trainer.step == 4
    folder = tmp_path / "run/checkpoints"
    assert (folder / "latest").resolve().name == "step-000004"
    assert (folder / "best").resolve().name == "step-000002"
    again = trainer_of(make_config(*patient, "2"))
    assert again.is_finished
    assert again.stops_early
    longer = scripted(trainer_of(make_config(*patient, "3")), [4.2])
    assert not longer.is_finished
    longer.train()
    assert longer.step == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint(make_config, capfd, number):
    trainer = trainer_of(make_config())
    train_step = trainer.train_step

    def interrupted(data):
        if data.step == 1:
            signal.raise_signal(number)
        return train_step(data)

    trainer.train_step = interrupted
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as caught:
        trainer.train()
    assert caught.value.code == 128 + number
    assert f"{number.name}: saving after this step" in capfd.readouterr().err
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    assert trainer_of(make_config()).step == 2


def test_a_second_signal_ends_it_at_once(make_config, tmp_path):
    trainer = trainer_of(make_config())

    def twice(data):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    trainer.train_step = twice
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert not (tmp_path / "run/checkpoints").exists()


@pytest.mark.parametrize("moment", ["validating", "saving the result"])
def test_a_run_killed_at_a_validation_keeps_its_step(make_config, tmp_path, moment):
    """The run is the one uncut, with the validation made up for."""
    arguments = ("--checkpoint.validate_every", "3", "--num_steps", "4")
    trainer_of(make_config(*arguments, "--output_dir", str(tmp_path / "uncut"))).train()
    trainer = trainer_of(make_config(*arguments))
    save = trainer.save

    def cut_off():
        raise PowerCut

    def save_once():
        trainer.save = cut_off
        save()

    if moment == "validating":
        trainer.validate = cut_off
    else:
        trainer.save = save_once
    with pytest.raises(PowerCut):
        trainer.train()
    trainer = trainer_of(make_config(*arguments))
    assert trainer.step == 3
    trainer.train()
    assert_same_run(tmp_path / "run", tmp_path / "uncut")


def test_the_last_validation_is_made_up_for(make_config, tmp_path):
    arguments = ("--num_steps", "2", "--optim.num_warmup_steps", "1")
    trainer = trainer_of(make_config(*arguments))
    trainer.validate = lambda: signal.raise_signal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        trainer.train()
    trainer = trainer_of(make_config(*arguments))
    assert (trainer.step, trainer.is_finished) == (2, False)
    trainer.train()
    assert trainer.best_step == 2
    assert trainer_of(make_config(*arguments)).is_finished


def test_a_signal_ends_a_validation(make_config, tmp_path, finished_run):
    """After step 4, at which nothing else would be saved."""
    trainer = trainer_of(make_config("--data.num_validation_batches", "2"))
    calls = []

    def interrupt(module, *_arguments):
        if not module.training:
            calls.append(1)
            if len(calls) == 1:
                signal.raise_signal(signal.SIGTERM)

    trainer.engine.module.register_forward_pre_hook(interrupt)
    with pytest.raises(SystemExit):
        trainer.train()
    num_micro_batches = len(trainer.validation_data["reasoning"][0].micro_batches)
    assert len(calls) == 2 * num_micro_batches, "the batch under way, and it shuffled"
    assert json.loads((tmp_path / "run/checkpoints/latest/trainer_state.json").read_text())["step"] == 4
    trainer_of(make_config()).train()
    assert_same_run(tmp_path / "run", finished_run)


def assert_same_run(run, expected):
    """What two runs have come to and have logged on the way is the same."""
    assert metric_lines(run) == metric_lines(expected)
    found, wanted = (results(folder / "checkpoints/latest") for folder in (run, expected))
    assert {name for name in wanted if found[name] != wanted[name]} == set()
    states = [json.loads((folder / "checkpoints/latest/trainer_state.json").read_text()) for folder in (run, expected)]
    assert states[0]["best_loss"] == states[1]["best_loss"]
    assert states[0]["best_step"] == states[1]["best_step"]


def test_a_mistake_found_by_a_background_process_reads_as_one(make_config, monkeypatch):
    monkeypatch.setattr(StepDataset, "check_examples", lambda self: None)
    restating = ("--data.stages", '[{"reasoning_share": 0.0}]')
    narrow = ("--model.decoder_max_tokens", "60", "--data.num_workers", "1", *restating)
    with pytest.raises(UserError) as caught:
        trainer_of(make_config(*narrow, validation=False)).train()
    assert not multiprocessing.active_children(), "it ends with the training"
    assert str(caught.value).startswith("context ")
    assert "Traceback" not in str(caught.value)
    assert "leave no room for a chunk in a window of 60; lower data.max_answer_tokens to " in str(caught.value)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("os error 28")])
def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint(make_config, tmp_path, monkeypatch, error):
    trainer = trainer_of(make_config())

    def full(tensors, path):
        if trainer.step == 6:
            path.write_bytes(b"half")
            raise error
        return save_file(tensors, path)

    monkeypatch.setattr(checkpoints_module, "save_file", full)
    with pytest.raises(AgreedError) as caught:
        trainer.train()
    message = str(caught.value)
    assert "step-000006: the checkpoint could not be written (" in message
    assert "make room or mend the folder, and continue with --resume auto" in message
    folder = tmp_path / "run/checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["best", "latest", "step-000003", "step-000004"]
    monkeypatch.undo()
    assert trainer_of(make_config()).step == 4


def test_a_checkpoint_folder_that_cannot_be_made_is_named(make_config, tmp_path):
    trainer = trainer_of(make_config())
    (tmp_path / "run/checkpoints").write_text("a file")
    with pytest.raises(AgreedError, match=r"step-000003: the checkpoint could not be written \(.*File exists"):
        trainer.train()
