"""Sums between log lines, metrics.jsonl, and what the terminal shows."""

import json
import logging
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from pefts import run_log
from pefts.run_log import (
    LogWindow,
    RunLog,
    Sums,
    chosen_trackers,
    drop_metrics_after,
    peak_memory_gib,
    set_up_logging,
)
from utils.common_utils import UserError


def test_sums_are_weighted_by_tokens():
    sums = Sums(loss=6.0, correct=1, labels=2, context_tokens=30, decoder_tokens=10, seconds=2.0)
    sums.add(
        Sums(
            loss=1.0, correct=3, labels=8, shuffled_loss=4.0, shuffled_labels=2, unshuffled_loss=1.0, trimmed_contexts=1
        )
    )
    assert sums.metrics() == {
        "loss": 0.7,
        "token_accuracy": 0.4,
        "shuffled_loss": 2.0,
        "shuffled_gap": 1.5,
        "context_tokens_per_second": 15.0,
        "decoder_tokens_per_second": 5.0,
        "trimmed_contexts": 1,
    }
    assert Sums().metrics() == {"loss": 0.0, "token_accuracy": 0.0}


def test_a_window_goes_round_as_json():
    window = LogWindow()
    window.of("reasoning").add(Sums(loss=0.1 + 0.2, labels=3))
    window.last["reasoning"] = {"grad_norm": 1 / 3, "epoch": 2}
    state = json.loads(json.dumps(window.state()))
    assert LogWindow.from_state(state, with_sums=True) == window
    assert LogWindow.from_state(state, with_sums=False) == LogWindow({"reasoning": Sums()}, window.last)
    assert window.of("understanding") == Sums()


def test_metrics_are_cut_back_to_a_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    drop_metrics_after(path, 3)
    assert not path.exists()
    lines = [json.dumps({"step": step, "split": split}) for step in (2, 3, 4) for split in ("train", "validation")]
    path.write_text("\n".join(lines) + '\n{"step": 3, "spl')
    drop_metrics_after(path, 3)
    assert path.read_text() == "\n".join(lines[:4]) + "\n"
    drop_metrics_after(path, 3, validates_again=True)
    assert path.read_text() == "\n".join(lines[:3]) + "\n"


def test_lines_are_written_by_the_main_process_alone(make_config, tmp_path):
    config = make_config()
    (tmp_path / "run").mkdir()
    log = RunLog(Accelerator(cpu=True), config, 0)
    log.write(2, "train", "reasoning", {"loss": 1.5})
    assert json.loads(log.path.read_text()) == {"step": 2, "split": "train", "objective": "reasoning", "loss": 1.5}


def test_weights_and_biases_stand_beside_tensorboard(make_config, tmp_path, monkeypatch):
    arguments = ("--logging.wandb_project", "towns", "--logging.tensorboard", "true")
    monkeypatch.setattr(run_log, "find_spec", lambda _name: None)
    with pytest.raises(UserError, match=r"logging.wandb_project='towns': wandb is not installed; pip install wandb"):
        chosen_trackers(make_config(*arguments).logging)
    assert chosen_trackers(make_config().logging) == []
    monkeypatch.setattr(run_log, "find_spec", lambda _name: object())
    projects, logged = [], []
    run = SimpleNamespace(log=lambda values, step, **_options: logged.append((step, values)), finish=lambda: None)
    wandb = SimpleNamespace(
        init=lambda project: projects.append(project) or run, config=SimpleNamespace(update=lambda *_, **__: None)
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    config = make_config(*arguments)
    trackers = chosen_trackers(config.logging)
    assert trackers[1].main_process_only
    accelerator = Accelerator(cpu=True, log_with=trackers, project_dir=tmp_path / "run")
    RunLog(accelerator, config, 0).write(2, "train", "reasoning", {"loss": 1.5})
    accelerator.end_training()
    assert projects == ["towns"]
    assert logged == [(2, {"train/reasoning/loss": 1.5})]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["metrics.jsonl", "tensorboard"]


@pytest.fixture
def restored_logging():
    """Put the loggers back as they were."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level = handlers, level
    for package in ("model", "dataset", "pefts", "utils", "__main__"):
        logging.getLogger(package).setLevel(logging.NOTSET)


def test_messages_go_to_the_terminal_and_to_a_file(tmp_path, capsys, restored_logging):
    set_up_logging(tmp_path / "train.log", is_main_process=True)
    logging.getLogger("pefts.anything").info("said")
    logging.getLogger("some.library").info("not said")
    logging.getLogger("some.library").warning("warned")
    text = (tmp_path / "train.log").read_text()
    assert [line.split(" ", 1)[1] for line in text.splitlines()] == ["INFO said", "WARNING warned"]
    assert capsys.readouterr().err == text
    set_up_logging(tmp_path / "other.log", is_main_process=False)
    logging.getLogger("pefts.anything").info("not said")
    assert not (tmp_path / "other.log").exists()
    assert capsys.readouterr().err == ""


def test_one_known_warning_is_not_shown(restored_logging):
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        warnings.simplefilter("always")
        set_up_logging(None, is_main_process=True)
        warnings.warn("`is_gradient_checkpointing` is deprecated and will be removed", FutureWarning, stacklevel=1)
        warnings.warn("another thing is deprecated", FutureWarning, stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["another thing is deprecated"]


def test_memory_is_measured():
    assert 0.01 < peak_memory_gib(torch.device("cpu")) < 1000
