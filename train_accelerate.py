"""Train an E2LLM: `accelerate launch train_accelerate.py --config configs/train_config.json [--key value ...]`."""

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the loader's processes are parallel already

import logging
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers.utils import logging as transformers_logging

from pefts.e2llm_args import TrainConfig
from pefts.run_log import set_up_logging
from pefts.run_setup import build_trainer, write_config
from utils.common_utils import UserError, run_cli
from utils.config_parsing import parse_config


def main() -> None:
    """Read the config, build the run or find where it stopped, and train."""
    config = parse_config(TrainConfig, description=__doc__)
    output_dir = Path(config.output_dir)
    trackers = ["tensorboard"] * config.logging.tensorboard + ["wandb"] * bool(config.logging.wandb_project)
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), log_with=trackers or None, project_dir=output_dir)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        set_up_logging(output_dir / "train.log", accelerator.is_main_process)
    except OSError as error:
        raise UserError(f"output_dir={config.output_dir!r}: cannot be written to ({error.strerror})") from None
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    trainer = build_trainer(config, accelerator)
    if trainer.is_finished:
        reason = "stopped early after" if trainer.stops_early else "has"
        logging.getLogger(__name__).info("nothing to do: %s %s %d steps already", output_dir, reason, trainer.step)
        return
    if accelerator.is_main_process:
        write_config(config)
    try:
        trainer.train()
    except FloatingPointError as error:
        raise UserError(f"{error}. Lower optim.learning_rate or look at these examples") from None


if __name__ == "__main__":
    run_cli(main)
