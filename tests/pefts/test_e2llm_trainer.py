"""A step, a run, and a run that was cut off: what is learned must not depend on how it was computed."""

import copy
import json
import math
import time
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from pefts.e2llm_trainer import seed_step
from pefts.run_log import Sums
from tests.pefts.conftest import metric_lines, results, scripted, stop_after, town_records, trainer_of, write_store
from utils.common_utils import UserError

NO_DROPOUT = ("--model.lora_dropout", "0", "--model.encoder_dropout", "0")


def steps_of(trainer, count: int) -> list[dict]:
    """Take steps and return what each came to."""
    outcomes = []
    for step in range(count):
        sums, grad_norm, _ = trainer.train_step(trainer.train_data[step])
        shuffled = sums.shuffled_loss / max(1, sums.shuffled_labels)
        outcomes.append({"loss": sums.loss / sums.labels, "grad_norm": grad_norm, "shuffled": shuffled})
    return outcomes


def test_the_loss_falls(make_config):
    trainer = trainer_of(make_config("--num_steps", "16", "--data.stages", '[{"reasoning_share": 1.0}]', *NO_DROPOUT))
    outcomes = steps_of(trainer, 16)
    first, last = (sum(outcome["loss"] for outcome in part) / 3 for part in (outcomes[:3], outcomes[-3:]))
    assert last < 0.7 * first


def test_micro_batches_change_nothing_but_memory(make_config):
    whole, split = (
        steps_of(trainer_of(make_config("--data.micro_batch_size", size, *NO_DROPOUT)), 3) for size in ("8", "2")
    )
    for one, other in zip(whole, split, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
    assert whole[0]["loss"] != pytest.approx(whole[2]["loss"], rel=1e-2)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--data.micro_batch_size", "1"),
        ("--data.micro_batch_size", "4"),
        ("--data.stages", '[{"reasoning_share": 1.0}]', "--data.reasoning_batch_size", "1"),
        ("--data.stages", '[{"reasoning_share": 1.0}]', "--data.prompts_per_context", "2"),
    ],
)
def test_the_shuffled_loss_is_that_of_chunks_the_step_does_not_read(make_config, monkeypatch, arguments):
    """Also where a step reads a single context: its own chunks in another order would tell as much."""
    stage = '[{"reasoning_share": 0.0, "min_window_chunks": 2, "max_window_chunks": 2}]'
    trainer = trainer_of(make_config("--data.stages", stage, *arguments, *NO_DROPOUT))
    dataset, data = trainer.train_data, trainer.train_data[0]
    read = []
    forward = trainer.engine.module.forward
    monkeypatch.setattr(trainer.engine.module, "forward", lambda tensors: read.append(tensors) or forward(tensors))
    sums = Sums()
    trainer._add_shuffled(dataset, 0, data.micro_batches, sums)
    assert sums.shuffled_labels == sum(batch.num_labels for batch in data.micro_batches)
    assert len(read) == len(data.micro_batches)
    own = set()
    for unit in dataset.plan.batch(0).units:
        chunks = dataset.store.context_chunks(unit.context, unit.first_chunk, unit.end_chunk)
        own |= set(map(tuple, dataset.chunk_tokenizer(chunks)[0]))
    for tensors, batch in zip(read, data.micro_batches, strict=True):
        assert len(tensors["chunk_ids"]) == len(batch.tensors["chunk_ids"])
        assert own.isdisjoint(chunks_of(tensors))
        assert own >= chunks_of(batch.tensors)


def test_without_another_context_there_is_no_shuffled_loss(make_config, tmp_path):
    lonely = write_store(tmp_path / "store", town_records(1))
    trainer = trainer_of(make_config("--data.train", json.dumps([str(lonely)])))
    sums, _, _ = trainer.train_step(trainer.train_data[0])
    assert "shuffled_loss" not in sums.metrics()


def test_the_shuffled_loss_is_of_the_same_weights(make_config):
    trainer = trainer_of(make_config(*NO_DROPOUT))
    data, expected = trainer.train_data[0], Sums()
    trainer._add_shuffled(trainer.train_data, 0, data.micro_batches, expected)
    sums, _, _ = trainer.train_step(data)
    assert sums.shuffled_loss == pytest.approx(expected.shuffled_loss, rel=1e-6)
    assert sums.unshuffled_loss == sums.loss != sums.shuffled_loss
    gap = (sums.shuffled_loss - sums.loss) / sums.labels
    assert sums.metrics()["shuffled_gap"] == pytest.approx(gap)
    trainer.window.of(data.objective).add(sums)
    again, _, _ = trainer.train_step(trainer.train_data[2])
    assert again.shuffled_labels == 0, "once between two log lines"


def test_the_shuffled_loss_is_computed_in_all_processes_or_none(make_config):
    """The first step since the last log line had it computed, though this process had a single chunk to give."""
    trainer = trainer_of(make_config())
    data = trainer.train_data[0]
    trainer.window.of(data.objective).add(Sums(loss=1.0, labels=1))
    calls = []
    trainer.engine.module.register_forward_hook(lambda *_: calls.append(1))
    trainer.train_step(data)
    assert len(calls) == len(data.micro_batches)


def test_the_shuffled_loss_can_be_left_out(make_config):
    trainer = trainer_of(make_config("--logging.shuffled_loss", "false"))
    sums, _, _ = trainer.train_step(trainer.train_data[0])
    assert "shuffled_loss" not in sums.metrics()


def chunks_of(tensors: dict) -> set[tuple[int, ...]]:
    """The token ids of the chunks that a micro-batch reads."""
    pairs = zip(tensors["chunk_ids"], tensors["chunk_mask"], strict=True)
    return {tuple(ids[mask.bool()].tolist()) for ids, mask in pairs}


def test_steps_are_seeded_apart():
    drawn = set()
    for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)):
        seed_step(*key)
        drawn.add(torch.rand(1).item())
    assert len(drawn) == 4


def test_validation_is_weighted_by_tokens(make_config):
    trainer = trainer_of(make_config("--data.micro_batch_size", "2"))
    measured = trainer.validate()
    assert set(measured) == {"understanding", "reasoning"}
    model = trainer.bare_model.eval()
    for objective, dataset in trainer.validation_data.items():
        assert len(dataset) == 1
        dataset.micro_batch_size = 1
        losses, labels = [], []
        for step in range(len(dataset)):
            for batch in dataset[step].micro_batches:
                with torch.no_grad():
                    losses.append(model(batch.tensors).loss_sum.item())
                labels.append(batch.num_labels)
        assert len(losses) == 4
        assert measured[objective].metrics()["loss"] == pytest.approx(sum(losses) / sum(labels), rel=1e-5)
        by_row = sum(loss / count for loss, count in zip(losses, labels, strict=True)) / len(losses)
        assert objective == "reasoning" or by_row != pytest.approx(sum(losses) / sum(labels), rel=1e-4)
        assert "shuffled_loss" in measured[objective].metrics()


def test_what_a_run_leaves(finished_run):
    checkpoints = finished_run / "checkpoints"
    # Saved every 3 steps, at the best (4) and at the last step, which is validated too; the last two are kept.
    assert sorted(path.name for path in checkpoints.iterdir()) == ["best", "latest", "step-000006", "step-000007"]
    assert (checkpoints / "latest").resolve().name == "step-000007"
    assert (checkpoints / "best").resolve().name == "step-000007"
    state = json.loads((checkpoints / "latest/trainer_state.json").read_text())
    assert state["step"] == state["best_step"] == 7
    lines = metric_lines(finished_run)
    validations = [line for line in lines if line["split"] == "validation"]
    assert [line["step"] for line in validations] == [4, 4, 7, 7]
    means = {step: sum(line["loss"] for line in validations if line["step"] == step) / 2 for step in (4, 7)}
    assert state["best_loss"] == means[7] < means[4]


def test_metrics_are_logged_by_objective(finished_run):
    lines = [line for line in metric_lines(finished_run) if line["split"] == "train"]
    assert Counter(line["objective"] for line in lines) == {"understanding": 4, "reasoning": 3}
    assert sorted({line["step"] for line in lines}) == [2, 4, 6, 7]
    for line in lines:
        assert line["shuffled_loss"] > 0
        assert line["adapter_learning_rate"] == pytest.approx(2 * line["decoder_learning_rate"])
        assert line["encoder_learning_rate"] == line["decoder_learning_rate"]
    assert lines[-1]["decoder_learning_rate"] == 0
    pairs = zip(lines[:6:2], lines[1:6:2], strict=True)
    assert all(one["grad_norm"] != other["grad_norm"] for one, other in pairs), "each objective has its own"


def test_a_run_cut_off_and_continued_is_the_run_uncut(make_config, finished_run, tmp_path):
    stop_after(trainer_of(make_config()), 5)
    with open(tmp_path / "run/metrics.jsonl", "a") as file:
        file.write('{"step": 5, "split": "train", "objective": "reasoning", "loss": 0.0}\n{"step": 6, "spl')
    trainer = trainer_of(make_config())
    assert trainer.step == 4
    trainer.train()
    for name, content in results(finished_run / "checkpoints/latest").items():
        assert results(tmp_path / "run/checkpoints/latest")[name] == content, name
    assert metric_lines(tmp_path / "run") == metric_lines(finished_run)


def test_a_log_window_goes_on_after_a_resume(make_config, finished_run, tmp_path):
    """The checkpoint of step 3 stands between the log lines of steps 2 and 4."""
    stop_after(trainer_of(make_config()), 3)
    trainer = trainer_of(make_config())
    assert trainer.step == 3
    assert {objective: sums.labels > 0 for objective, sums in trainer.window.sums.items()} == {"understanding": True}
    trainer.train()
    assert metric_lines(tmp_path / "run") == metric_lines(finished_run)


def test_a_log_window_of_all_processes_is_continued_by_one(make_config, tmp_path):
    trainer = trainer_of(make_config())
    trainer.window.of("understanding").add(Sums(loss=3.0, labels=2, seconds=0.5, steps=1))
    trainer.window.last["understanding"] = {"grad_norm": 1.0, "epoch": 0}
    trainer._reduced = lambda sums: Sums(2 * sums.loss, labels=2 * sums.labels, seconds=sums.seconds, steps=2)
    trainer.save()
    state = json.loads((tmp_path / "run/checkpoints/latest/trainer_state.json").read_text())
    windows = []
    for is_main in (True, False):
        trainer.accelerator = SimpleNamespace(is_main_process=is_main)
        trainer.restore(state)
        windows.append(trainer.window)
    assert windows[0].sums == {"understanding": Sums(loss=6.0, labels=4, seconds=0.5, steps=2)}
    assert windows[1].sums == {"understanding": Sums()}
    assert windows[0].last == windows[1].last == {"understanding": {"grad_norm": 1.0, "epoch": 0}}


EACH_STEP = ("--checkpoint.validate_every", "1", "--checkpoint.save_every", "1", "--checkpoint.keep_last", "1")


def test_best_and_newest_are_kept_and_a_resume_remembers_the_best(make_config, tmp_path):
    folder = tmp_path / "run/checkpoints"
    stop_after(scripted(trainer_of(make_config(*EACH_STEP)), [5.0, 3.0, 4.0, 3.5]), 4)
    assert sorted(path.name for path in folder.glob("step-*")) == ["step-000002", "step-000004"]
    trainer = scripted(trainer_of(make_config(*EACH_STEP)), [3.2, 2.9, 3.1, 3.1])
    assert (trainer.best_step, trainer.best_loss) == (2, 3.0)
    trainer.train()
    assert (folder / "best").resolve().name == "step-000006"
    assert sorted(path.name for path in folder.glob("step-*")) == ["step-000006", "step-000007"]


def test_links_that_a_kill_left_undone_are_mended(make_config, tmp_path):
    folder = tmp_path / "run/checkpoints"
    stop_after(scripted(trainer_of(make_config(*EACH_STEP[:4])), [5.0, 3.0]), 2)
    # As if killed after the folder of step 2 was in place.
    for link in ("best", "latest"):
        (folder / link).unlink()
        (folder / link).symlink_to("step-000001")
    trainer_of(make_config(*EACH_STEP))
    assert (folder / "best").resolve().name == (folder / "latest").resolve().name == "step-000002"


def test_without_validation_the_last_is_the_best(make_config, tmp_path):
    stop_after(trainer_of(make_config(validation=False)), 4)
    folder = tmp_path / "run/checkpoints"
    assert (folder / "best").resolve().name == "step-000003"
    assert not any(line["split"] == "validation" for line in metric_lines(tmp_path / "run"))


def test_a_run_that_reads_lower_layers_goes_on(make_config):
    lower = ("--model.encoder_layers", "[0, 1]")
    stop_after(trainer_of(make_config(*lower)), 3)
    trainer = trainer_of(make_config(*lower))
    assert trainer.step == 3
    trainer.train()


def test_a_run_without_validation_goes_on_and_can_be_given_one(make_config, tmp_path):
    stop_after(trainer_of(make_config(validation=False)), 3)
    trainer = trainer_of(make_config(validation=False))
    assert trainer.step == 3
    stop_after(trainer, 6)
    trainer = trainer_of(make_config())
    assert trainer.best_step is None
    trainer.train()
    state = json.loads((tmp_path / "run/checkpoints/latest/trainer_state.json").read_text())
    assert state["best_step"] == 7
    assert state["best_loss"] > 0


def test_the_best_loss_is_forgotten_with_the_validation_data(make_config, tmp_path, caplog):
    folder = tmp_path / "run/checkpoints"
    stop_after(scripted(trainer_of(make_config(*EACH_STEP)), [5.0, 3.0, 4.0]), 3)
    trainer = trainer_of(make_config(*EACH_STEP))
    assert (trainer.best_step, trainer.validations_without_gain) == (2, 1)
    assert "validation batches have changed" not in caplog.text
    other = write_store(tmp_path / "other", town_records(8, seed=3))
    for change in (("--data.validation", json.dumps([str(other)])), ("--data.num_validation_batches", "2")):
        caplog.clear()
        trainer = trainer_of(make_config(*EACH_STEP, *change))
        assert (trainer.best_step, trainer.best_loss, trainer.validations_without_gain) == (None, math.inf, 0)
        assert "the best loss so far, 3 after step 2, is forgotten" in caplog.text
    stop_after(scripted(trainer, [6.0]), 4)
    assert (folder / "best").resolve().name == "step-000004"


def test_a_changed_store_is_refused(make_config, validation_store):
    stop_after(trainer_of(make_config()), 3)
    with pytest.raises(UserError, match="the stores have changed since the checkpoint was written"):
        trainer_of(make_config("--data.train", json.dumps([str(validation_store)])))


def test_options_changed_since_the_checkpoint_are_reported(make_config, caplog):
    stop_after(trainer_of(make_config()), 3)
    trainer_of(make_config("--data.num_workers", "1", "--data.micro_batch_size", "2"))
    assert "changed since the checkpoint" not in caplog.text, "these change nothing of the result"
    stage = '[{"reasoning_share": 0.25}]'
    trainer_of(make_config("--optim.learning_rate", "0.25", "--num_steps", "9", "--data.stages", stage))
    changes = [record.getMessage() for record in caplog.records if "changed since" in record.getMessage()]
    assert "changed since the checkpoint: optim.learning_rate was 0.005, is 0.25" in changes
    assert "changed since the checkpoint: num_steps was 7, is 9" in changes
    assert len(changes) == 3
    assert "data.stages was [{'steps': 0, 'reasoning_share': 0.5" in changes[0]


def test_processes_run_the_model_equally_often(make_config):
    """Engines whose processes meet in every forward pass would otherwise wait for each other forever."""
    trainer = trainer_of(make_config("--data.micro_batch_size", "1"))
    shares = []
    for process in range(2):
        share = copy.copy(trainer.train_data)
        share.process_index, share.num_processes = process, 2
        shares.append(share)
    for step in range(7):
        one, other = (len(share[step].micro_batches) for share in shares)
        assert one == other == 2 or trainer.train_data.plan.objective(step) == "reasoning"
        assert one == other >= 1
    calls = []
    trainer.engine.module.register_forward_hook(lambda *_: calls.append(1))
    for step in range(7):
        # Whether there are chunks of others is decided on the global batch.
        assert len({share.chunks_of_others(step) is None for share in shares}) == 1
        trainer._add_shuffled(shares[1], step, shares[1][step].micro_batches, Sums())
        assert len(calls) == len(shares[1][step].micro_batches)
        calls.clear()


def test_the_parts_of_a_step_are_timed(make_config):
    trainer = trainer_of(make_config())
    started = time.perf_counter()
    sums, _, _ = trainer.train_step(trainer.train_data[0])
    parts = {phase: getattr(sums, f"{phase}_seconds") for phase in ("encoder", "decoder", "backward", "optimizer")}
    assert all(seconds > 0 for seconds in parts.values())
    assert sum(parts.values()) < time.perf_counter() - started
    two = Sums()
    two.add(sums)
    two.add(sums)
    assert two.metrics()["encoder_seconds"] == pytest.approx(parts["encoder"]), "a step"
