"""Evaluate an E2LLM: `python eval.py --config configs/eval_config.json [--key value ...]`.

Under `accelerate launch`, `torchrun` or `PROCESSES_PER_NODE=N sh eval.sh`, N processes share the work by contexts.
"""

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import logging
import platform
from datetime import timedelta
from importlib import metadata
from pathlib import Path

import torch
from accelerate import PartialState
from transformers.utils import logging as transformers_logging

from evaluate.command_line import choose_metrics
from evaluate.predictions import read_predictions
from evaluate.report import write_evaluation
from evaluate.report_diagnostics import summarise_diagnostics
from evaluate.scoring import METRICS
from model.checkpoint import read_config
from model.pro_model import E2LLM
from pefts.diagnostics import attend_to_chunks, restate_chunks
from pefts.e2llm_evaluator import Evaluator
from pefts.eval_args import EvalConfig
from pefts.eval_questions import check_files
from pefts.reconstruction import measure_reconstruction
from pefts.run_log import METRICS_FILE, set_up_logging
from utils.common_utils import run_cli
from utils.config_parsing import parse_config


def main() -> None:
    """Answer, measure, score, and write the report."""
    config = parse_config(EvalConfig, description=__doc__)
    # A process that has done its share waits for the slowest, which may take hours longer.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=30))
    set_up_logging(None, is_main_process=state.is_main_process)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for task in config.tasks:
        choose_metrics(task.metrics, METRICS)
    check_files(config, read_config(Path(config.checkpoint)))
    with state.local_main_process_first():  # who comes first converts a GGUF, the others find it converted
        model = E2LLM.from_pretrained(config.checkpoint, config.compute, state.device)
    run_info = describe_run(config, model, state.num_processes)
    evaluator = Evaluator(config, model, state.process_index, state.num_processes)
    state.wait_for_everyone()
    evaluator.run()
    state.wait_for_everyone()
    if state.is_main_process:
        evaluator.finish()
        write_results(config, evaluator, run_info)
    if state.use_distributed:
        state.destroy_process_group()


def describe_run(config: EvalConfig, model: E2LLM, num_processes: int) -> dict:
    """Return what the report says at its top."""
    sizes = {name: _megabytes(part) for name, part in (("encoder", model.chunk_encoder), ("decoder", model.decoder))}
    return {
        "checkpoint": f"{config.checkpoint} ({Path(config.checkpoint).resolve().name})",
        "encoder": f"{model.config.encoder} ({sizes['encoder']} with adapter and LoRA)",
        "decoder": f"{model.config.decoder} ({sizes['decoder']} with LoRA, window {model.decoder_window})",
        "chunk size": f"{model.config.chunk_size} characters",
        "computed in": f"{model.resolved_compute.dtype}".removeprefix("torch.") + f" on {model.device.type}",
        "processes": num_processes,
        "versions": f"torch {metadata.version('torch')}, transformers {metadata.version('transformers')}, "
        f"Python {platform.python_version()}",
    }


def _megabytes(module: torch.nn.Module) -> str:
    return f"{sum(p.numel() * p.element_size() for p in module.parameters()) / 1e6:,.0f} MB"


def write_results(config: EvalConfig, evaluator: Evaluator, run_info: dict) -> None:
    """Measure reconstruction and diagnostics, score the predictions asked for, and write and print the report."""
    plan = evaluator.plan
    tasks = [
        {"name": task.name, "metrics": task.metrics, "published": task.published}
        | {"modes": plan.modes(task), "ids": plan.ids(task)}
        for task in config.tasks
    ]
    training_metrics = Path(config.checkpoint).resolve().parent.parent / METRICS_FILE
    report = write_evaluation(
        evaluator.folder,
        predictions=read_predictions(evaluator.files.path),
        tasks=tasks,
        reconstruction=measure_reconstruction(config, evaluator.model),
        diagnostics=summarise_diagnostics(restate_chunks(config, evaluator.model), attend_to_chunks(evaluator)),
        training_metrics=training_metrics if training_metrics.is_file() else None,
        run_info=run_info,
    )
    logging.getLogger(__name__).info("report: %s", report)
    print(report.read_text(encoding="utf-8").split("\n## Sample")[0])
    for path in sorted(report.parent.rglob("*.png")):
        print(f"plot: {path}")


if __name__ == "__main__":
    run_cli(main)
