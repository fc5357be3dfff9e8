"""train_accelerate.py and eval.py as a user runs them: real processes, killed in the middle, with tiny models."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import eval as eval_script
import train_accelerate
from evaluate.scoring import METRICS
from pefts.e2llm_args import TrainConfig
from tests.pefts.conftest import (
    ROOT,
    metric_lines,
    parsed,
    results,
    town_records,
    train_options,
    trainer_of,
    write_store,
)
from utils.common_utils import UserError

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> tuple[Path, Path]:
    """Stores to train on and to validate on."""
    folder = tmp_path_factory.mktemp("stores")
    return write_store(folder / "train", town_records()), write_store(folder / "validation", town_records(8, seed=2))


@pytest.fixture
def options(tmp_path, backbones, stores) -> dict:
    """Options of a run in tmp_path/run."""
    options = train_options(tmp_path / "run", backbones, *stores)
    options["num_steps"] = 12
    options["logging"]["every"] = 1
    options["data"]["num_workers"] = 1
    return options


def start(script: str, options: dict, folder: Path, *arguments: str) -> subprocess.Popen:
    """Start a script in a process group of its own."""
    path = folder / f"{script}.json"
    path.write_text(json.dumps(options), encoding="utf-8")
    command = [sys.executable, script, "--config", str(path), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, start_new_session=True, **pipes)


def signal_group_after(process: subprocess.Popen, step: int, output_dir: Path, number: int) -> str:
    """Send a signal to a run's processes once a step is in metrics.jsonl; returns what it wrote to stderr."""
    deadline = time.monotonic() + 120
    path = output_dir / "metrics.jsonl"
    while f'"step": {step},' not in (path.read_text() if path.exists() else ""):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"step {step} was never logged"
        time.sleep(0.005)
    os.killpg(process.pid, number)
    return process.communicate(timeout=60)[1]


def test_a_run_killed_and_terminated_becomes_the_run_uninterrupted(options, tmp_path):
    process = start("train_accelerate.py", options, tmp_path)
    signal_group_after(process, 5, tmp_path / "run", signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "run/checkpoints/step-000012").exists(), "it was to be killed in the middle"

    process = start("train_accelerate.py", options, tmp_path)
    stderr = signal_group_after(process, 8, tmp_path / "run", signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    assert "SIGTERM: saving after this step" in stderr
    assert "continue with --resume auto" in stderr
    assert "Traceback" not in stderr
    assert "FutureWarning" not in stderr
    state = json.loads((tmp_path / "run/checkpoints/latest/trainer_state.json").read_text())
    assert 8 <= state["step"] < 12
    log = (tmp_path / "run/train.log").read_text()
    assert "continuing from" in log
    assert f"step {state['step']}: saved" in log

    trainer_of(parsed(TrainConfig, options, tmp_path)).train()
    uncut = options | {"output_dir": str(tmp_path / "uncut"), "data": options["data"] | {"num_workers": 0}}
    trainer_of(parsed(TrainConfig, uncut, tmp_path)).train()
    expected = results(tmp_path / "uncut/checkpoints/latest")
    for name, content in results(tmp_path / "run/checkpoints/latest").items():
        assert content == expected[name], name
    assert metric_lines(tmp_path / "run") == metric_lines(tmp_path / "uncut")
    config = json.loads((tmp_path / "run/config.json").read_text())["config"]
    assert config["optim"]["learning_rate"] == options["optim"]["learning_rate"]


def run_main(monkeypatch, script, *arguments: str) -> int | None:
    """Run a script's main in this process, leaving loggers alone; returns what it returns."""
    monkeypatch.setattr(sys, "argv", [script.__file__, *arguments])
    monkeypatch.setattr(script, "set_up_logging", lambda *_arguments, **_options: None)
    return script.main()


@pytest.fixture
def run_train(options, tmp_path, monkeypatch):
    """Return a function that runs train_accelerate.py's main with further arguments."""
    path = tmp_path / "options.json"
    options["data"]["num_workers"] = 0
    options["num_steps"] = 2
    options["optim"]["num_warmup_steps"] = 1
    path.write_text(json.dumps(options), encoding="utf-8")
    return lambda *arguments: run_main(monkeypatch, train_accelerate, "--config", str(path), *arguments)


def test_a_finished_run_is_left_alone(run_train, tmp_path, caplog):
    run_train()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    caplog.set_level("INFO", "train_accelerate")
    run_train()
    assert "has 2 steps already" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    run_train("--num_steps", "3")
    assert (tmp_path / "run/checkpoints/latest").resolve().name == "step-000003"


def test_an_output_dir_that_cannot_be_written_to_is_named(run_train, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"output_dir='.*file/run': cannot be written to \(Not a directory\)"):
        run_train("--output_dir", str(tmp_path / "file/run"))

    def read_only(log_file, *_arguments):
        raise PermissionError(13, "Permission denied", log_file)

    arguments = ["--config", str(tmp_path / "options.json"), "--output_dir", str(tmp_path / "other")]
    monkeypatch.setattr(sys, "argv", [train_accelerate.__file__, *arguments])
    monkeypatch.setattr(train_accelerate, "set_up_logging", read_only)
    with pytest.raises(UserError, match=r"output_dir='.*other': cannot be written to \(Permission denied\)"):
        train_accelerate.main()


def test_a_loss_that_is_not_finite_ends_the_run_with_its_examples(run_train, tmp_path, monkeypatch, capsys):
    build_trainer = train_accelerate.build_trainer

    def poisoned(*arguments):
        trainer = build_trainer(*arguments)
        trainer.bare_model.chunk_encoder.adapter.projection.bias.data[0] = float("nan")
        return trainer

    monkeypatch.setattr(train_accelerate, "build_trainer", poisoned)
    assert run_train() == 2
    error = capsys.readouterr().err.rpartition("error: ")[2]
    assert error.startswith(
        "step 0 (understanding): the loss is nan; nothing was updated. It was computed on: context "
    )
    assert "Lower optim.learning_rate or look at these examples" in error
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_worker_that_cannot_read_is_quoted(run_train, tmp_path, monkeypatch):
    """The error of a loader's process comes with its text alone."""
    build_trainer = train_accelerate.build_trainer

    def failing(*arguments):
        trainer = build_trainer(*arguments)

        def fail():
            raise OSError("Caught OSError in DataLoader worker process 0: Input/output error")

        trainer.train = fail
        return trainer

    monkeypatch.setattr(train_accelerate, "build_trainer", failing)
    with pytest.raises(UserError, match=r"run: Caught OSError .*: Input/output error; mend it and go on with --resume"):
        run_train()


@pytest.fixture
def trained(options, tmp_path) -> Path:
    """The best checkpoint of a short run."""
    short = ("--num_steps", "2", "--optim.num_warmup_steps", "1")
    config = parsed(TrainConfig, options, tmp_path, *short, "--data.num_workers", "0")
    trainer_of(config).train()
    return tmp_path / "run/checkpoints/best"


def eval_options(tmp_path: Path, checkpoint: Path, store: Path, metrics: list[str]) -> dict:
    return {
        "checkpoint": str(checkpoint),
        "output_dir": str(tmp_path / "eval"),
        "batch_size": 4,
        "modes": ["model", "closed_book"],
        "tasks": [{"name": "towns", "data": [str(store)], "metrics": metrics, "max_new_tokens": 4}],
        "reconstruction": {"data": [str(store)], "windows": [1, 2], "num_windows": 4},
    }


def test_an_evaluation_writes_what_its_predictions_say(trained, stores, tmp_path):
    process = start("eval.py", eval_options(tmp_path, trained, stores[1], ["exact_match", "f1"]), tmp_path)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    lines = (tmp_path / "eval/predictions.jsonl").read_text(encoding="utf-8").splitlines()
    predictions = [json.loads(line) for line in lines]
    assert len(predictions) == 32
    metrics = json.loads((tmp_path / "eval/metrics.json").read_text())
    report = (tmp_path / "eval/report.md").read_text(encoding="utf-8")
    for group in metrics["scores"]["towns"]["by_mode"]:
        own = [record for record in predictions if record["mode"] == group["group"]["mode"]]
        assert group["n"] == len(own) == 16
        for name in ("exact_match", "f1"):
            mean = sum(METRICS[name].score(record)[name] for record in own) / len(own)
            assert group["scores"][name]["value"] == pytest.approx(100 * mean)
    assert metrics["reconstruction"]["loss_true"] > 0
    assert [row["window"] for row in metrics["reconstruction"]["by_window"]] == [1, 2]
    assert "step-000002" in metrics["run_info"]["checkpoint"]
    for text in ("# Evaluation report", "towns", "closed_book", "exact_match"):
        assert text in report
    assert report.splitlines()[0] in stdout
    plots = [Path(line.removeprefix("plot: ")) for line in stdout.splitlines() if line.startswith("plot: ")]
    assert plots
    assert all(path.stat().st_size > 1000 for path in plots)


def launch_eval(options: dict, folder: Path, num_processes: int) -> subprocess.Popen:
    """Start eval.sh on a number of processes, in a process group of its own."""
    path = folder / "eval.json"
    path.write_text(json.dumps(options), encoding="utf-8")
    environment = ENVIRONMENT | {"PROCESSES_PER_NODE": str(num_processes), "PYTHON": sys.executable}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = ["sh", "eval.sh", "--config", str(path)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **pipes)


def test_killed_on_three_processes_an_evaluation_ends_on_two(trained, stores, tmp_path):
    """With a task of a single context besides, where a process has nothing to do."""
    options = eval_options(tmp_path, trained, stores[1], ["exact_match"]) | {"reconstruction": {}, "batch_size": 1}
    process = launch_eval(options, tmp_path, 3)
    deadline = time.monotonic() + 900
    while not list((tmp_path / "eval").glob("predictions.part-*.jsonl")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no prediction was ever written"
        time.sleep(0.005)
    # The processes are no longer in the launcher's group; killed alone, it leaves them at work.
    os.killpg(process.pid, signal.SIGKILL)
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(tmp_path / "eval.json").encode() in (path / "cmdline").read_bytes().split(b"\0"):
                os.kill(int(path.name), signal.SIGKILL)
    process.communicate(timeout=60)
    options["tasks"].append(options["tasks"][0] | {"name": "single", "max_contexts": 1, "modes": ["closed_book"]})
    process = launch_eval(options, tmp_path, 2)
    stdout, stderr = process.communicate(timeout=1800)
    assert process.returncode == 0, stderr
    assert stdout.count("# Evaluation report") == 1
    assert not list((tmp_path / "eval").glob("predictions.part-*.jsonl"))
    lines = (tmp_path / "eval/predictions.jsonl").read_text(encoding="utf-8").splitlines()
    keys = [(record["task"], record["mode"], record["id"]) for record in map(json.loads, lines)]
    assert len(set(keys)) == 32 + 2
    metrics = json.loads((tmp_path / "eval/metrics.json").read_text())
    assert metrics["run_info"]["processes"] == 2
    assert [group["n"] for group in metrics["scores"]["towns"]["by_mode"]] == [16, 16]


def test_scores_follow_the_predictions(trained, tmp_path, monkeypatch, backbones):
    """Half of the references are what the model says anyway, so exactly half of the answers are right."""
    store = write_store(tmp_path / "first", town_records(8, seed=3))
    options = eval_options(tmp_path, trained, store, ["exact_match"]) | {"modes": ["model"], "reconstruction": {}}
    path = tmp_path / "eval.json"
    path.write_text(json.dumps(options))
    run_main(monkeypatch, eval_script, "--config", str(path))
    lines = (tmp_path / "eval/predictions.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    by_prompt = {(record["prompt"], record["context_chars"]): record["prediction"] for record in map(json.loads, lines)}
    records = town_records(8, seed=3)
    for index, record in enumerate(records):
        said = by_prompt[record["prompt"], len(record["context"])]
        record["answer"] = said if index % 2 and said else "quite another answer"
    right = sum(record["answer"] != "quite another answer" for record in records)
    assert right
    second = write_store(tmp_path / "second", records)
    options["tasks"][0]["data"] = [str(second)]
    path.write_text(json.dumps(options | {"output_dir": str(tmp_path / "eval2")}))
    run_main(monkeypatch, eval_script, "--config", str(path))
    metrics = json.loads((tmp_path / "eval2/metrics.json").read_text())
    (group,) = metrics["scores"]["towns"]["by_mode"]
    assert group["scores"]["exact_match"]["value"] == pytest.approx(100 * right / 16)


def test_a_missing_checkpoint_is_said_without_a_traceback(stores, tmp_path):
    process = start("eval.py", eval_options(tmp_path, tmp_path / "nowhere", stores[1], ["f1"]), tmp_path)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 2
    assert f"error: {tmp_path}/nowhere: no checkpoint here (it has no e2llm_config.json)" in stderr
    assert "Traceback" not in stderr
    assert "Warning" not in stderr


def test_an_unknown_metric_is_named_before_anything_is_loaded(stores, tmp_path, monkeypatch):
    path = tmp_path / "eval.json"
    path.write_text(json.dumps(eval_options(tmp_path, tmp_path / "nowhere", stores[1], ["exact_macth"])))
    with pytest.raises(UserError, match=r"metric 'exact_macth' is not one of .*Did you mean 'exact_match'\?"):
        run_main(monkeypatch, eval_script, "--config", str(path))
