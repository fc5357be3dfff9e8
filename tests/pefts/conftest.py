"""Small stores and configs for training and evaluating the tiny models."""

import json
import random
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from model.checkpoint import save_model, write_manifest
from model.pro_model import E2LLM
from pefts.e2llm_args import TrainConfig
from pefts.e2llm_evaluator import Evaluator
from pefts.e2llm_trainer import Trainer
from pefts.eval_args import EvalConfig
from pefts.run_log import Sums
from pefts.run_setup import build_trainer
from preprocess.preshuffle_data_and_chunk import parse_options, preshuffle
from tests.conftest import build_model, sentence
from utils.config_parsing import parse_config

ROOT = Path(__file__).parents[2]
RESULT_FILES = (
    "adapter.safetensors",
    "encoder_lora/adapter_model.safetensors",
    "decoder_lora/adapter_model.safetensors",
    "optimizer.safetensors",
)
"""What training has made of a model, byte for byte."""
TIMING = ("_per_second", "_seconds", "memory_gib")


def write_store(folder: Path, records: list[dict], *options: str) -> Path:
    """Write records to FOLDER.jsonl and chunk them into a store of chunks of 40 characters."""
    source = folder.with_suffix(".jsonl")
    source.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    arguments = ["--input", str(source), "--output_dir", str(folder), "--num_proc", "1", "--chunk_size", "40"]
    preshuffle(parse_options([*arguments, *options]))
    return folder


def town_records(count: int = 24, seed: int = 1) -> list[dict]:
    """Documents of one to four sentences with two prompts each."""
    rng, records = random.Random(seed), []
    for index in range(count):
        context = "\n".join(sentence(rng) for _ in range(1 + index % 4))
        name, _, _, town, _, year = context.split("\n")[0].rstrip(".").split(" ")
        for prompt, answer in ((f"Where does {name} live?", town), (f"Since when does {name} live there?", year)):
            records.append({"context": context, "prompt": prompt, "answer": answer})
    return records


def train_options(output_dir: Path, backbones: tuple[str, str], store: Path, validation: Path | None = None) -> dict:
    """The content of a config file for a short run with dropout."""
    return {
        "output_dir": str(output_dir),
        "num_steps": 7,
        "lora_modules": str(ROOT / "configs/lora_modules.json"),
        "model_windows": str(ROOT / "configs/model2maxlen.json"),
        "model": {
            "encoder": backbones[0],
            "decoder": backbones[1],
            "chunk_size": 40,
            "pma_heads": 4,
            "encoder_lora_rank": 2,
            "decoder_lora_rank": 2,
            "lora_dropout": 0.1,
            "encoder_dropout": 0.1,
        },
        "compute": {"dtype": "float32"},
        "data": {
            "train": [str(store)],
            "validation": [str(validation)] if validation else [],
            "understanding_batch_size": 4,
            "reasoning_batch_size": 4,
            "prompts_per_context": 2,
            "micro_batch_size": 4,
            "num_workers": 0,
            "num_validation_batches": 1,
        },
        "optim": {"learning_rate": 5e-3, "adapter_learning_rate": 1e-2, "num_warmup_steps": 2},
        "logging": {"every": 2, "tensorboard": False},
        "checkpoint": {"save_every": 3, "validate_every": 4},
    }


def parsed(config_class: type, options: dict, folder: Path, *arguments: str):
    """Write options to a config file and read it as the scripts do."""
    path = folder / "options.json"
    path.write_text(json.dumps(options), encoding="utf-8")
    return parse_config(config_class, ["--config", str(path), *arguments])


def trainer_of(config: TrainConfig) -> Trainer:
    """Build the trainer of a config, continued from a checkpoint where there is one."""
    Path(config.output_dir).mkdir(parents=True, exist_ok=True)
    return build_trainer(config, Accelerator(cpu=True))


class PowerCut(Exception):
    """Ends a run without any goodbye."""


def stop_after(trainer: Trainer, step: int) -> None:
    """Train and end the run without any goodbye after a step, as a power cut would."""
    after_step = trainer._after_step

    def cut(run_log):
        goes_on = after_step(run_log)
        if trainer.step == step:
            raise PowerCut
        return goes_on

    trainer._after_step = cut
    with pytest.raises(PowerCut):
        trainer.train()


def metric_lines(output_dir: Path | str) -> list[dict]:
    """The lines of metrics.jsonl without what depends on the machine's speed."""
    lines = map(json.loads, (Path(output_dir) / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if not key.endswith(TIMING)} for line in lines]


def results(checkpoint: Path) -> dict[str, bytes]:
    """The trained weights and the optimizer's state of a checkpoint."""
    return {name: (checkpoint / name).read_bytes() for name in RESULT_FILES}


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Path:
    """A store to train on."""
    return write_store(tmp_path_factory.mktemp("train") / "store", town_records())


@pytest.fixture(scope="session")
def validation_store(tmp_path_factory) -> Path:
    """A store of other documents."""
    return write_store(tmp_path_factory.mktemp("validation") / "store", town_records(8, seed=2))


@pytest.fixture
def make_config(tmp_path, backbones, store, validation_store):
    """Return a function that makes the config of a run in tmp_path/run, changed by command-line arguments."""

    def make(*arguments: str, validation: bool = True) -> TrainConfig:
        options = train_options(tmp_path / "run", backbones, store, validation_store if validation else None)
        return parsed(TrainConfig, options, tmp_path, *arguments)

    return make


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, backbones, store, validation_store) -> Path:
    """The folder of an uninterrupted run of the default options; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    options = train_options(folder / "run", backbones, store, validation_store)
    trainer_of(parsed(TrainConfig, options, folder)).train()
    return folder / "run"


@pytest.fixture
def checkpoint(model_config, tmp_path) -> Path:
    """A checkpoint of a tiny model whose LoRA does something."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_model(build_model(model_config), folder)
    write_manifest(folder)
    return folder


@pytest.fixture
def make_eval_config(tmp_path, checkpoint, validation_store):
    """Return a function that makes the config of an evaluation in tmp_path/eval, changed by command-line arguments."""

    def make(*arguments: str, **task) -> EvalConfig:
        task = {"name": "towns", "data": [str(validation_store)], "metrics": ["f1"], "max_new_tokens": 6} | task
        options = {"checkpoint": str(checkpoint), "output_dir": str(tmp_path / "eval"), "tasks": [task]}
        # Times differ from run to run.
        options["timed_prompts"] = 0
        return parsed(EvalConfig, options, tmp_path, *arguments)

    return make


def predictions_of(evaluator: Evaluator) -> list[dict]:
    """Run an evaluation and return its records in the order of the file."""
    evaluator.run()
    evaluator.finish()
    return [json.loads(line) for line in evaluator.files.path.read_text(encoding="utf-8").split("\n") if line]


def evaluator_of(config: EvalConfig) -> Evaluator:
    """The evaluator of a config, with its checkpoint loaded."""
    return Evaluator(config, E2LLM.from_pretrained(config.checkpoint))


def by_id(records: list[dict]) -> dict[str, dict]:
    """Records by id, each id once."""
    result = {record["id"]: record for record in records}
    assert len(result) == len(records)
    return result


def fresh(folder: Path) -> Path:
    """A new folder."""
    folder.mkdir()
    return folder


def trained_weights(trainer) -> dict[str, torch.Tensor]:
    named = trainer.bare_model.named_parameters()
    return {name: parameter.detach().clone() for name, parameter in named if parameter.requires_grad}


def scripted(trainer, losses: list[float]):
    """Let validations come out as a script says."""
    script = iter(losses)
    trainer.validate = lambda: {"reasoning": Sums(loss=next(script), labels=1)}
    return trainer
