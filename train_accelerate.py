"""Train an E2LLM: `accelerate launch train_accelerate.py --config configs/train_config.json [--key value ...]`."""

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the loader's processes are parallel already

import logging
import sys
from pathlib import Path

from accelerate import Accelerator
from transformers.utils import logging as transformers_logging

from pefts.agreement import AgreedError
from pefts.checkpoints import RunCheckpoints
from pefts.e2llm_args import TrainConfig
from pefts.launch import (
    Launch,
    check_launch,
    lost_contact,
    read_launch,
    run_launched,
    start_accelerator,
)
from pefts.run_log import chosen_trackers, set_up_logging
from pefts.run_setup import build_trainer, write_config
from utils.common_utils import UserError, run_cli
from utils.config_parsing import parse_config

logger = logging.getLogger(__name__)


def main() -> int | None:
    """Read the config, join the launch's other processes, and train."""
    try:
        config = parse_config(TrainConfig, description=__doc__)
        launch = read_launch(os.environ)
        check_launch(launch, config)
        trackers = chosen_trackers(config.logging)
    except UserError as error:
        if int(os.environ.get("LOCAL_RANK", "0")) > 0:  # the machine's other processes say the same
            return error.exit_code
        raise
    accelerator = start_accelerator(launch, config, log_with=trackers or None, project_dir=config.output_dir)
    try:
        train(config, launch, accelerator)
    except AgreedError as error:
        if accelerator.is_main_process:
            print(f"error: {error}", file=sys.stderr, flush=True)
        accelerator.wait_for_everyone()  # no process ends, and has the others ended, before the message is out
        return error.exit_code
    except UserError as error:
        if accelerator.num_processes > 1:
            raise type(error)(f"process {accelerator.process_index}: {error}") from None
        raise
    return None


def train(config: TrainConfig, launch: Launch, accelerator: Accelerator) -> None:
    """Build the run or find where it stopped, and train it to its end.

    Raises:
        UserError: what ended it; an `AgreedError` where all processes know.
    """
    output_dir = Path(config.output_dir)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        set_up_logging(output_dir / "train.log", accelerator.is_main_process)
    except OSError as error:
        raise UserError(f"output_dir={config.output_dir!r}: cannot be written to ({error.strerror})") from None
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logger.info("engine: %s; processes: %d", launch.name, accelerator.num_processes)
    trainer = build_trainer(config, accelerator, launch.engine)
    if trainer.is_finished:
        reason = "stopped early after" if trainer.stops_early else "has"
        logger.info("nothing to do: %s %s %d steps already", output_dir, reason, trainer.step)
        return
    if accelerator.is_main_process:
        write_config(config, launch.name, accelerator.num_processes)
    try:
        trainer.train()
    except FloatingPointError as error:
        raise AgreedError(f"{error}. Lower optim.learning_rate or look at these examples") from None
    except OSError as error:
        raise UserError(
            f"{error.filename or output_dir}: {error.strerror or error}; mend it and go on with --resume auto"
        ) from None
    except RuntimeError as error:
        newest = RunCheckpoints(output_dir / "checkpoints", config.checkpoint.keep_last).newest_complete()
        if accelerator.num_processes > 1 and (lost := lost_contact(error, config, newest)):
            raise lost from None
        raise


if __name__ == "__main__":
    if "WORLD_SIZE" in os.environ:
        run_launched(main)
    run_cli(main)
