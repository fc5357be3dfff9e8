"""Evaluate an E2LLM: `python eval.py --config configs/eval_config.json [--key value ...]`."""

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import logging
import platform
from importlib import metadata
from pathlib import Path

from transformers.utils import logging as transformers_logging

from evaluate.command_line import choose_metrics
from evaluate.predictions import read_predictions
from evaluate.report import write_evaluation
from evaluate.scoring import METRICS
from model.pro_model import E2LLM
from pefts.e2llm_args import EvalConfig
from pefts.e2llm_evaluator import PREDICTIONS_FILE, Evaluator, measure_reconstruction
from pefts.run_log import METRICS_FILE, set_up_logging
from utils.common_utils import run_cli
from utils.config_parsing import parse_config


def main() -> None:
    """Answer, measure, score, and write the report."""
    config = parse_config(EvalConfig, description=__doc__)
    set_up_logging(None, is_main_process=True)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for task in config.tasks:
        choose_metrics(task.metrics, METRICS)
    model = E2LLM.from_pretrained(config.checkpoint, config.compute)
    evaluator = Evaluator(config, model)
    evaluator.run()
    checkpoint = Path(config.checkpoint).resolve()
    training_metrics = checkpoint.parent.parent / METRICS_FILE
    folder = Path(config.output_dir)
    report = write_evaluation(
        folder,
        predictions=read_predictions(folder / PREDICTIONS_FILE),
        tasks=[{"name": task.name, "metrics": task.metrics} for task in config.tasks],
        reconstruction=measure_reconstruction(config, model),
        training_metrics=training_metrics if training_metrics.is_file() else None,
        run_info={
            "checkpoint": f"{config.checkpoint} ({checkpoint.name})",
            "encoder": model.config.encoder,
            "decoder": model.config.decoder,
            "chunk size": f"{model.config.chunk_size} characters",
            "versions": f"torch {metadata.version('torch')}, transformers {metadata.version('transformers')}, "
            f"Python {platform.python_version()}",
        },
    )
    logging.getLogger(__name__).info("report: %s", report)
    print(report.read_text(encoding="utf-8").split("\n## Sample")[0])
    for path in sorted(report.parent.rglob("*.png")):
        print(f"plot: {path}")


if __name__ == "__main__":
    run_cli(main)
