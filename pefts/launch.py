"""What the launcher asked for, checked against the config and against what accelerate then made of it.

Accelerate takes engine and processes from environment variables that `accelerate launch` sets from its command line and
its launch file. Several combinations end in one process, or in another engine, without a word; here each of them is
refused, before or after the `Accelerator` is made.
"""

import logging
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import torch
import torch.distributed
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
)

from model.compute import ComputeConfig, default_device, has_fast_bfloat16
from pefts.e2llm_args import TrainConfig
from pefts.engines import Engine, Fsdp2Engine, Zero3Engine, ZeroEngine
from utils.common_utils import LostProcessError, UserError, run_cli

logger = logging.getLogger(__name__)

ASKED_PROCESSES = "E2LLM_NUM_PROCESSES"
"""Environment variable in which the launch scripts say how many processes they start in all."""
EXIT_CODES = "E2LLM_EXIT_CODES"
"""Environment variable with the folder where each process leaves its exit code, which launchers do not pass on."""
STALE_LOCK_SECONDS = 600
SIMPLE_LAUNCHER = ("ACCELERATE_USE_CPU", "ACCELERATE_MIXED_PRECISION", "ACCELERATE_DYNAMO_BACKEND")
"""Environment variables that accelerate's launcher of a single process always sets; where it was asked for more, which
it does not start, it sets MASTER_ADDR and MASTER_PORT besides."""
_CONNECTION_WORDS = re.compile(r"gloo|nccl|timed out|connection (closed|reset|refused)|broken pipe", re.IGNORECASE)
FSDP_VALUES = {
    "version": "2",
    "reshard_after_forward": "true",
    "offload_params": "false",
    "activation_checkpointing": "false",
    "cpu_ram_efficient_loading": "false",
}
"""What an FSDP launch file may say; everything else would be passed over."""


@dataclass(frozen=True)
class Launch:
    """What the environment says about a launch."""

    engine: type[Engine] = Engine
    zero_stage: int = 0
    num_processes: int = 1
    gradient_accumulation_steps: str = "1"
    gradient_clipping: str = "auto"
    mixed_precision: str = "no"
    offload_device: str = "none"

    @property
    def name(self) -> str:
        """The engine as users know it."""
        if self.zero_stage:
            return f"DeepSpeed ZeRO-{self.zero_stage}" + self.offload_suffix
        if self.engine is Fsdp2Engine:
            return "FSDP2"
        return "DDP" if self.num_processes > 1 else "one process"

    @property
    def offload_suffix(self) -> str:
        """What `name` adds where the optimizer's state lives on the processor."""
        return " with optimizer offload" if self.offload_device != "none" else ""


def read_launch(environment: Mapping[str, str]) -> Launch:
    """Read what `accelerate launch` left in the environment.

    Raises:
        UserError: an engine, or a setting of it, that this program does not have.
    """
    world_size = int(environment.get("WORLD_SIZE", 1))
    asked = int(environment.get(ASKED_PROCESSES, world_size))
    if asked != world_size:
        raise UserError(
            f"{asked} processes were asked for and {world_size} started; start them with train_local_machine.sh or "
            "train_multi_node.sh, or see docs/distributed.md for what accelerate launch needs on a processor"
        )
    if "WORLD_SIZE" not in environment and all(
        name in environment for name in (*SIMPLE_LAUNCHER, "MASTER_ADDR", "MASTER_PORT")
    ):
        raise UserError(
            "accelerate launch was asked for several processes and started one, as it does with --cpu; start them with "
            "train_local_machine.sh or train_multi_node.sh, or unset MASTER_ADDR and MASTER_PORT to train with one"
        )
    if _is_true(environment, "ACCELERATE_USE_MEGATRON_LM"):
        raise UserError("distributed_type in the launch file: MEGATRON_LM is not supported; see the files in local/")
    common = {
        "num_processes": world_size,
        "gradient_accumulation_steps": environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1"),
        "gradient_clipping": environment.get("ACCELERATE_GRADIENT_CLIPPING", "auto"),
        "mixed_precision": environment.get("ACCELERATE_MIXED_PRECISION", "no"),
    }
    if _is_true(environment, "ACCELERATE_USE_DEEPSPEED"):
        return _read_deepspeed(environment, common)
    if _is_true(environment, "ACCELERATE_USE_FSDP"):
        for key, supported in FSDP_VALUES.items():
            value = environment.get(f"FSDP_{key.upper()}", supported).lower()
            if value != supported:
                raise UserError(f"fsdp_{key}: {value} in the launch file: only {supported} is supported")
        return Launch(Fsdp2Engine, **common)
    return Launch(**common)


def _read_deepspeed(environment: Mapping[str, str], common: dict) -> Launch:
    if _is_true(environment, "ACCELERATE_USE_CPU"):
        raise UserError(
            "use_cpu: true in the launch file, or ACCELERATE_USE_CPU=true in the environment: accelerate then trains "
            "with DDP instead of DeepSpeed; remove it, DeepSpeed runs on the processor where there is no GPU"
        )
    stage = int(environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2"))
    if stage not in (1, 2, 3):
        raise UserError(f"zero_stage: {stage} in the launch file: must be 1, 2 or 3; without it, leave DeepSpeed out")
    if environment.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none") != "none":
        raise UserError(
            "deepspeed_config_file in the launch file: give the settings themselves, as local/ds_config_zero2.yaml does"
        )
    if _is_true(environment, "ACCELERATE_DEEPSPEED_ZERO3_INIT"):
        raise UserError("zero3_init_flag: true in the launch file: only false is supported")
    devices = {
        key: environment.get(f"ACCELERATE_DEEPSPEED_OFFLOAD_{key.upper()}_DEVICE", "none")
        for key in ("optimizer", "param")
    }
    if devices["optimizer"] not in ("none", "cpu") or devices["param"] != "none":
        raise UserError(
            f"offload_optimizer_device: {devices['optimizer']}, offload_param_device: {devices['param']} in the launch "
            "file: only the optimizer can be offloaded, to cpu"
        )
    engine = Zero3Engine if stage == 3 else ZeroEngine
    return Launch(engine, stage, offload_device=devices["optimizer"], **common)


def _is_true(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "false").lower() in ("true", "1", "yes")


def check_launch(launch: Launch, config: TrainConfig) -> None:
    """Refuse a launch file that says something else than the config.

    Raises:
        UserError: naming both values.
    """
    if launch.gradient_accumulation_steps not in ("1", "auto"):
        raise UserError(
            f"gradient_accumulation_steps: {launch.gradient_accumulation_steps} in the launch file: set it to 1; "
            f"data.micro_batch_size={config.data.micro_batch_size} decides in how many parts a step's batch is computed"
        )
    if (
        launch.gradient_clipping not in ("auto", "none")
        and float(launch.gradient_clipping) != config.optim.max_grad_norm
    ):
        raise UserError(
            f"gradient_clipping: {launch.gradient_clipping} in the launch file, optim.max_grad_norm="
            f"{config.optim.max_grad_norm} in the config: remove the former or make them equal"
        )
    dtype = resolved_dtype(config.compute)
    if launch.mixed_precision not in ("no", {"bfloat16": "bf16"}.get(dtype, "no")):
        raise UserError(
            f"mixed_precision: {launch.mixed_precision} in the launch file, compute.dtype={config.compute.dtype} "
            f"({dtype} on this machine) in the config: set the former to 'no'; compute.dtype decides the number format"
        )
    for objective in ("understanding", "reasoning"):
        size = getattr(config.data, f"{objective}_batch_size")
        if size % launch.num_processes:
            raise UserError(
                f"data.{objective}_batch_size={size}: not divisible by the {launch.num_processes} processes of this "
                "run; make it a multiple, or start fewer with PROCESSES_PER_NODE"
            )
    if launch.zero_stage:
        _check_deepspeed()


def resolved_dtype(compute: ComputeConfig) -> str:
    """Return the name of the number format that `compute.dtype` stands for on this machine."""
    if compute.dtype != "auto":
        return compute.dtype
    return "bfloat16" if has_fast_bfloat16(default_device()) else "float32"


def _check_deepspeed() -> None:
    if find_spec("deepspeed") is None:
        raise UserError("DeepSpeed is not installed: pip install -r requirements-deepspeed.txt, or launch with DDP")
    if torch.cuda.is_available():
        return
    for program in (os.environ.get("CXX", "g++"), "ninja"):
        if shutil.which(program, path=_search_path()) is None:
            raise UserError(
                f"{program}: not found on PATH; on a processor DeepSpeed compiles its exchange of gradients once, "
                "which needs g++ (Debian: apt-get install g++) and ninja (in requirements-deepspeed.txt)"
            )
    folder = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache/torch_extensions")
    for lock in folder.glob("**/lock"):
        if time.time() - lock.stat().st_mtime > STALE_LOCK_SECONDS:
            raise UserError(f"{lock}: left by a build that was cut off; DeepSpeed would wait for it forever; remove it")


def _search_path() -> str:
    """PATH with the environment's own programs first: two versions of ninja in turn would build everything anew."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def start_accelerator(launch: Launch, config: TrainConfig, **options) -> Accelerator:
    """Join the other processes of the launch.

    Args:
        options: further arguments of `Accelerator`.

    Raises:
        UserError: the others cannot be reached, or accelerate made something else of the launch.
    """
    timeout = timedelta(seconds=config.timeout_seconds)
    on_gpu = torch.cuda.is_available()
    # Buffers (rotary frequencies, position ids) are the same everywhere and never change.
    handlers = [DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)]
    if "WORLD_SIZE" in os.environ:
        handlers.append(InitProcessGroupKwargs(backend="nccl" if on_gpu else "gloo", timeout=timeout))
    if launch.zero_stage:
        os.environ["PATH"] = _search_path()
        if not on_gpu:
            os.environ["DS_ACCELERATOR"] = "cpu"
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # FSDP2 is `Fsdp2Engine`'s: accelerate passes over it on a processor, without a word.
    os.environ.pop("ACCELERATE_USE_FSDP", None)
    try:
        accelerator = Accelerator(
            # DeepSpeed on a processor must not be told so: accelerate would train with DDP instead.
            cpu=not on_gpu and not launch.zero_stage,
            mixed_precision="no",
            kwargs_handlers=handlers,
            **options,
        )
    except (torch.distributed.DistError, ConnectionError) as error:
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise UserError(f"the processes of this run cannot reach each other at {place}: {error}") from None
    _check_accelerator(launch, accelerator)
    if launch.zero_stage == 3:
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        # Else transformers loads weights already divided, and the adapter's start reads them.
        unset_hf_deepspeed_config()
    return accelerator


def _check_accelerator(launch: Launch, accelerator: Accelerator) -> None:
    is_deepspeed = accelerator.distributed_type == DistributedType.DEEPSPEED
    if accelerator.num_processes != launch.num_processes or is_deepspeed != bool(launch.zero_stage):
        raise UserError(
            f"asked for {launch.name} on {launch.num_processes} processes; accelerate made it "
            f"{accelerator.distributed_type.value} on {accelerator.num_processes}; see docs/distributed.md"
        )


def lost_contact(error: RuntimeError, config: TrainConfig, newest: Path | None) -> LostProcessError | None:
    """Return what to tell the user if an error means that another process is gone or hangs, else None."""
    if not isinstance(error, torch.distributed.DistError) and not _CONNECTION_WORDS.search(str(error)):
        return None
    reason = re.sub(r"^\[[^]]*\] *", "", str(error).strip().splitlines()[0]).partition(". ")[0]
    return LostProcessError(
        f"another process of this run is gone, or has not answered for timeout_seconds={config.timeout_seconds} "
        f"({reason}). Look for its own message above; newest checkpoint: "
        f"{newest or 'none'}; continue with --resume auto"
    )


def run_launched(main: Callable[[], int | None]) -> NoReturn:
    """Run a script's `main` as one of the processes of a launch, and leave its exit code to the launch script.

    The process ends without Python's own tidying up: on a processor it now and then aborts there, with all work done.
    """
    code: int | str | None = 1
    try:
        run_cli(main)
    except SystemExit as exit_request:
        code = exit_request.code
    except BaseException:
        traceback.print_exc()
    # The launcher ends the others when the first process is gone; what they were to do is done.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    code = code if isinstance(code, int) else 1
    if EXIT_CODES in os.environ:
        Path(os.environ[EXIT_CODES], os.environ.get("LOCAL_RANK", "0")).write_text(str(code), encoding="utf-8")
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
