"""A sweep with tiny models: planned, run, interrupted, continued, and put into a table."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers.utils import logging as transformers_logging

import eval as eval_script
import train_accelerate
from benchmarks import ablations
from benchmarks.ablations import Sweep, run_script
from dataset.store import MANIFEST_NAME
from pefts.e2llm_args import TrainConfig
from pefts.run_setup import build_trainer
from tests.pefts.conftest import ROOT, parsed, town_records, train_options, write_store
from utils.common_utils import UserError, read_json


@pytest.fixture
def make_sweep(tmp_path, backbones):
    """Return a function that plans a sweep in tmp_path/out of a base of 4 steps, with variants given by name."""
    records = {"train": town_records(), "test": town_records(8, seed=2)}
    stores = {name: write_store(tmp_path / name, of_name) for name, of_name in records.items()}
    train = train_options(tmp_path / "unused", backbones, stores["train"], stores["test"])
    train |= {"num_steps": 8, "checkpoint": {"save_every": 2, "validate_every": 8}}
    task = {"name": "towns", "data": [str(stores["test"])], "metrics": ["exact_match"], "max_new_tokens": 3}
    evaluation = {"checkpoint": "unused", "output_dir": "unused", "tasks": [task]}
    evaluation["reconstruction"] = {"data": [str(stores["test"])], "windows": [1], "num_windows": 4}
    for name, content in (("train", train), ("eval", evaluation)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")

    def make(variants: dict, names=(), seeds=(0,), num_steps=4, **spec) -> Sweep:
        spec = {
            "train_config": str(tmp_path / "train.json"),
            "eval_config": str(tmp_path / "eval.json"),
            "inputs": {str(path): f"{path}.jsonl" for path in stores.values()},
            "variants": variants,
        } | spec
        return Sweep(spec, "spec.json", tmp_path / "out", names, seeds, num_steps)

    return make


@pytest.fixture
def scripts(monkeypatch):
    """Run the scripts in this process; returns the list of what was run, in which a test may name steps to stop at."""
    calls: list[str] = []

    def run(arguments, log, while_waiting):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        while_waiting()
        calls.append(f"{arguments[0].removesuffix('.py')} {log.parent.parent.name} {log.parent.name}")
        if arguments[0].startswith("preprocess"):
            from preprocess.preshuffle_data_and_chunk import parse_options, preshuffle

            preshuffle(parse_options([*arguments[1:], "--num_proc", "1"]))
            return
        script = {"train_accelerate.py": train_accelerate, "eval.py": eval_script}[arguments[0]]
        monkeypatch.setattr(sys, "argv", [script.__file__, *arguments[1:]])
        monkeypatch.setattr(script, "set_up_logging", lambda *_arguments, **_options: None)
        with open(log, "a", encoding="utf-8") as file, contextlib.redirect_stderr(file):
            code = script.main()
        if code:
            raise UserError(log.read_text(encoding="utf-8"))

    monkeypatch.setattr(ablations, "run_script", run)
    yield calls
    transformers_logging.set_verbosity_warning()


def test_a_sweep_is_run_once_continued_and_put_into_a_table(make_sweep, scripts, tmp_path, capsys):
    variants = {
        "base": {"what": "as it is"},
        "no_reasoning": {"what": "restating only", "train": {"data.stages": [{"reasoning_share": 0.0}]}},
        "broken": {"what": "PMA heads that do not divide", "train": {"model.pma_heads": 5}},
        "chunk_size_20": {"what": "small chunks", "train": {"model.chunk_size": 20}},
    }
    sweep = make_sweep(variants, seeds=(0, 1), names=("base", "broken"))
    sweep.make_stores()
    failures = sweep.run("python x")
    assert set(failures) == {"broken seed 0", "broken seed 1"}
    assert "model.pma_heads=5" in failures["broken seed 0"]
    assert [call for call in scripts if "base" in call] == [
        f"{script} base seed-{seed}" for seed in (0, 1) for script in ("train_accelerate", "eval")
    ]
    document = read_json(tmp_path / "out/ablations.json")
    losses = document["summary"]["base"]["figures"]["Losses (nats a token)"]
    assert losses["gap"]["n"] == 2
    assert losses["validation, reasoning"]["sd"] > 0
    assert document["runs"]["broken"] == {}
    seeds = [document["runs"]["base"][seed]["Losses (nats a token)"]["restating"] for seed in ("0", "1")]
    assert losses["restating"]["mean"] == pytest.approx(sum(seeds) / 2)

    scripts.clear()
    again = make_sweep(variants, names=("base", "no_reasoning", "chunk_size_20"))
    again.make_stores()
    assert again.run("python x") == {}
    assert [call.split()[1] for call in scripts if call.startswith("eval")] == ["no_reasoning", "chunk_size_20"]
    assert sum(call.startswith("preprocess") for call in scripts) == 2
    text = (tmp_path / "out/ablations.md").read_text()
    assert "| no_reasoning  | restating only    | 0     |" in text
    assert "## towns: exact_match (%) by tokens of the context" in text
    figures = read_json(tmp_path / "out/ablations.json")["summary"]
    assert "validation, reasoning" not in figures["no_reasoning"]["figures"]["Losses (nats a token)"]
    by_chunks = "towns: exact_match (%) by chunks of the context"
    assert set(figures["base"]["figures"][by_chunks]) == {"all", "1", "2", "3", "4"}
    assert "8" in figures["chunk_size_20"]["figures"][by_chunks]


def test_plans_are_checked_before_anything_runs(make_sweep, tmp_path):
    with pytest.raises(UserError, match=r"--variants: no 'bas' in spec.json. Did you mean 'base'"):
        make_sweep({"base": {"what": ""}}, names=("bas",))
    with pytest.raises(UserError, match=r"unknown key model.pma_head"):
        make_sweep({"base": {"what": "", "train": {"model.pma_head": 2}}})
    with pytest.raises(UserError, match=r"unknown key variants.base.trian. Did you mean 'train'"):
        make_sweep({"base": {"what": "", "trian": {}}})
    with pytest.raises(UserError, match=r"lacks variants.base.what"):
        make_sweep({"base": {}})
    with pytest.raises(UserError, match=r"no store there; make it, or name the file"):
        make_sweep({"base": {"what": "", "train": {"model.chunk_size": 20}}}, inputs={})
    sweep = make_sweep({"base": {"what": ""}}, num_steps=2)
    (sweep.runs[0].folder / "checkpoints/latest").mkdir(parents=True)
    with pytest.raises(UserError, match=r"train_config.json: this run was begun with other options; remove"):
        make_sweep({"base": {"what": ""}}, num_steps=4)


def test_a_training_whose_last_validation_was_cut_off_is_not_done(make_sweep):
    (run,) = make_sweep({"base": {"what": ""}}, num_steps=2).runs
    assert not run.is_trained
    checkpoint = run.folder / "checkpoints/step-000002"
    checkpoint.mkdir(parents=True)
    checkpoint.with_name("latest").symlink_to(checkpoint.name)
    for is_due in (True, False):
        (checkpoint / "trainer_state.json").write_text(json.dumps({"validation_is_due": is_due}))
        assert run.is_trained != is_due


def test_the_variants_of_the_demo_fit_its_training(tmp_path, backbones, store, validation_store):
    """Each variant's model and data are built, with tiny backbones in the place of the demo's."""
    from accelerate import Accelerator

    from benchmarks.config_overrides import apply_overrides, shorten

    spec = read_json(ROOT / "configs/ablations.json")
    base = shorten(apply_overrides(read_json(ROOT / spec["train_config"]), spec["train"], "train"), spec["num_steps"])
    tiny = train_options(tmp_path / "run", backbones, store, validation_store)
    tiny_data = tiny["data"] | {"stages": base["data"]["stages"]}
    places = {key: tiny["model"][key] for key in ("encoder", "decoder", "chunk_size")}
    names = list(spec["variants"])
    assert len(names) > 20
    for name in names:
        variant = spec["variants"][name].get("train", {})
        config = apply_overrides(base | {"data": base["data"] | tiny_data}, variant, name)
        # Documents of the demo may have any number of lines; the tiny ones have up to four.
        config["data"]["stages"] = [stage | {"min_context_chunks": 1} for stage in config["data"]["stages"]]
        # What is chunked otherwise needs stores of its own, which the sweep makes.
        chunking = {"chunk_size": 40, "chunk_overlap": 0}
        small = {"adapter_width": 48, "adapter_feed_forward": 64}
        config["model"] |= places | chunking | {key: small[key] for key in small if base["model"].get(key)}
        config |= {key: tiny[key] for key in ("output_dir", "lora_modules", "model_windows", "compute")}
        config["adapter_init"] = config.get("adapter_init", {}) | {"num_texts": 8}
        trainer = build_trainer(parsed(TrainConfig, config, tmp_path), Accelerator(cpu=True))
        objectives = {trainer.train_data.plan.objective(step) for step in range(spec["num_steps"])}
        assert ("cued" in objectives) == (name == "cued_restatement")


def test_a_script_that_fails_is_quoted_and_one_that_runs_is_ended(tmp_path):
    arguments = ["--input", str(tmp_path / "none.jsonl"), "--output_dir", str(tmp_path / "store")]
    arguments = ["preprocess/preshuffle_data_and_chunk.py", *arguments]
    with pytest.raises(UserError, match=r"ended with code 2: error: .*none.jsonl.* \(all of it: .*x.out\)"):
        run_script(arguments, tmp_path / "x.out", lambda: None)

    (tmp_path / "sleeper.py").write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)\n")
    process, output = start_script(tmp_path / "sleeper.py")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int(output.read_text()), 0)


def start_script(script: Path) -> tuple[subprocess.Popen, Path]:
    """Start a process that runs a script as a sweep does; returns it, and what the script prints, once it has begun."""
    output = script.with_suffix(".out")
    code = (
        "import signal, sys\n"
        "from pathlib import Path\n"
        "from benchmarks.ablations import run_script\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        f"run_script([{str(script)!r}], Path({str(output)!r}), lambda: None)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not output.exists() or not output.read_text().endswith("\n"):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process, output


def test_ctrl_c_reaches_a_script_as_one_signal(tmp_path):
    script = tmp_path / "counter.py"
    script.write_text(
        "import signal, time\n"
        "def note(number, _frame):\n"
        "    print(signal.Signals(number).name, flush=True)\n"
        "for number in (signal.SIGINT, signal.SIGTERM):\n"
        "    signal.signal(number, note)\n"
        "print('ready', flush=True)\n"
        "signal.pause()\n"
        "time.sleep(1)\n"
    )
    process, output = start_script(script)
    # A terminal sends it to all processes of the group.
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=120) != 0
    assert output.read_text().split() == ["ready", "SIGTERM"]


def test_runs_on_different_data_are_not_mixed(make_sweep, scripts, tmp_path):
    variants = {
        "base": {"what": "as it is"},
        "chunk_size_20": {"what": "small chunks", "train": {"model.chunk_size": 20}},
    }
    sweep = make_sweep(variants)
    sweep.make_stores()
    own = next(store for store in sweep.stores.values() if store.is_own and store.source.endswith("train.jsonl"))
    before = (own.path / MANIFEST_NAME).read_text()
    for run in sweep.runs:
        (run.folder / "checkpoints/latest").mkdir(parents=True)
    scripts.clear()
    make_sweep(variants).make_stores()
    assert scripts == []

    source = Path(own.source)
    source.write_text(source.read_text().replace("Rome", "Oslo"), encoding="utf-8")
    with pytest.raises(
        UserError, match=r"chunk_size_20/seed-0/stores.json: .* another content of .*; remove .* or choose"
    ):
        make_sweep(variants).make_stores()
    assert len(scripts) == 1 and (own.path / MANIFEST_NAME).read_text() != before

    write_store(tmp_path / "train", town_records(seed=3), "--overwrite")
    with pytest.raises(
        UserError, match=r"base/seed-0/stores.json: this run was begun with another content of .*train;"
    ):
        make_sweep(variants, names=("base",)).make_stores()

    # Scores alone, the checkpoints removed to save room, are those of a run on certain data too.
    base = next(run for run in sweep.runs if run.variant == "base")
    (base.folder / "checkpoints/latest").rmdir()
    (base.folder / "eval").mkdir()
    (base.folder / "eval/metrics.json").write_text("{}")
    with pytest.raises(UserError, match="this run was begun with another content"):
        make_sweep(variants, names=("base",)).make_stores()
