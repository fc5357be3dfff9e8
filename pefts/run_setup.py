"""From a config to a trainer ready to run: model, data, optimizer, and the state of the checkpoint to continue from."""

import dataclasses
import json
import logging
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed

from dataset.dataset import StepDataset
from model.backbones import load_config
from model.checkpoint import MANIFEST_FILE, load_weights, read_config, verify_manifest
from model.config import UNDERSTANDING, E2LLMConfig
from model.pro_model import E2LLM
from pefts.adapter_init import initialise_adapter
from pefts.agreement import AgreedError, raise_together
from pefts.checkpoints import RunCheckpoints, read_trainer_state
from pefts.e2llm_args import TrainConfig
from pefts.e2llm_trainer import Trainer
from pefts.engines import Engine
from pefts.optimizer import build_optimizer
from pefts.run_data import (
    build_datasets,
    check_validation,
    open_store,
    validation_fingerprint,
    warn_of_prompts_left_out,
    warn_of_unused_prompts,
)
from utils.common_utils import UserError, atomic_write_text, read_json, read_text, sha256_file
from utils.tokenization import check_template

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
PACKAGES = ("torch", "transformers", "accelerate", "peft", "tokenizers", "safetensors", "numpy", "pyarrow")
PLACES = (
    "output_dir",
    "resume",
    "init_from",
    "lora_modules",
    "model_windows",
    "data.train",
    "data.validation",
    "data.prompt_files",
)
"""Options that say where something is, which machines may know by different names: what is there is compared."""
FREE_TO_CHANGE = {
    "trust_remote_code",
    "chunk_size",
    "chunk_overlap",
    "encoder_max_tokens",
    "decoder_max_tokens",
    "decoder_native_window",
    "lora_dropout",
    "encoder_dropout",
    "use_chat_template",
    "templates",
}
"""Options of the model that a run may have otherwise than the one whose weights it starts with."""


def build_trainer(config: TrainConfig, accelerator: Accelerator, engine: type[Engine] = Engine) -> Trainer:
    """Build everything a run needs and put it in the state it continues from.

    What fails in one process fails in all: those that would otherwise go on hear of it.

    Raises:
        UserError: the config does not fit the data, the backbones, the checkpoint or the way it was launched.
    """
    run = problem = None
    try:
        run = _build_run(config, accelerator, engine)
    except UserError as error:
        problem = str(error)
    raise_together(accelerator, problem)
    check_agreement(accelerator, _identity(config, run), config.output_dir)
    trainer = Trainer(
        accelerator,
        config,
        run.model,
        run.optimizer,
        *run.data,
        data_fingerprint=run.fingerprint,
        validation_fingerprint=run.validation_fingerprint,
        engine=engine,
    )
    if run.checkpoint:
        missing = trainer.engine.restore_optimizer(run.optimizer_tensors)
        if missing:
            raise AgreedError(
                f"{run.checkpoint}: the optimizer's state lacks {len(missing)} parameters, e.g. {missing[0]}"
            )
        trainer.restore(run.state)
        logger.info("continuing from %s", run.checkpoint)
    return trainer


@dataclass
class _Run:
    """What a trainer is made of, before the processes meet."""

    model: E2LLM
    optimizer: torch.optim.AdamW
    data: tuple[StepDataset, dict[str, StepDataset]]
    fingerprint: str
    validation_fingerprint: str | None
    checkpoint: Path | None
    state: dict | None = None
    optimizer_tensors: dict[str, torch.Tensor] | None = None


def _build_run(config: TrainConfig, accelerator: Accelerator, engine: type[Engine]) -> _Run:
    checkpoint = find_checkpoint(config)
    train_store = open_store(config.data.train, "data.train", config.model)
    validation_store = open_store(config.data.validation, "data.validation", config.model)
    complete_model_config(config)
    if checkpoint:
        check_same_model(config.model, checkpoint)
    elif config.init_from:
        _check_checkpoint(Path(config.init_from), "init_from")
        check_same_weights(config.model, Path(config.init_from))
    compute = config.compute
    if engine.shards_weights and compute.fused_lora:
        logger.info("compute.fused_lora is off: this engine shards the weights, which the fused pass reads directly")
        compute = dataclasses.replace(compute, fused_lora=False)
    set_seed(config.seed)
    model = E2LLM.from_backbones(config.model, compute, accelerator.device)
    optimizer = build_optimizer(model, config.optim)
    warn_of_unused_prompts(config, train_store, validation_store)
    data = build_datasets(config, model, train_store, validation_store, accelerator)
    data[0].check_examples()
    warn_of_prompts_left_out(data[0])
    check_validation(data[1])
    validated = validation_fingerprint(validation_store, data[1]) if validation_store else None
    run = _Run(model, optimizer, data, train_store.fingerprint, validated, checkpoint)
    if checkpoint:
        load_weights(model, checkpoint)
        run.state, run.optimizer_tensors = read_trainer_state(checkpoint)
    elif config.init_from:
        load_weights(model, Path(config.init_from))
        logger.info("starting from the weights of %s", config.init_from)
    else:
        initialise_adapter(model, train_store, config)
    _describe(model, data[0], config)
    return run


def _identity(config: TrainConfig, run: _Run) -> dict[str, object]:
    """Return what must be the same in all processes, by what users call it."""
    identity = {
        "step to continue from": run.state["step"] if run.state else 0,
        "checkpoint's manifest": sha256_file(run.checkpoint / MANIFEST_FILE) if run.checkpoint else None,
        "content of data.train": run.fingerprint,
        "content and batches of data.validation": run.validation_fingerprint,
        "number format": str(run.model.resolved_compute.dtype),
    }
    for key, value in dataclasses.asdict(config).items():
        identity |= {f"{key}.{name}": item for name, item in value.items()} if isinstance(value, dict) else {key: value}
    return {key: value for key, value in identity.items() if key not in PLACES}


def check_agreement(accelerator: Accelerator, identity: dict[str, object], output_dir: str) -> None:
    """Refuse to train where processes would not train the same run; all must call it.

    Args:
        identity: what must be the same in all processes, by what users call it.
        output_dir: where this process looked for checkpoints.

    Raises:
        AgreedError: naming what differs, each value and the processes that have it.
    """
    if accelerator.num_processes == 1:
        return
    identities = gather_object([identity])
    differing = []
    for key in dict.fromkeys(key for each in identities for key in each):
        ranks_of: dict[str, list[int]] = {}
        for rank, each in enumerate(identities):
            ranks_of.setdefault(repr(each.get(key)), []).append(rank)
        if len(ranks_of) > 1:
            values = [f"{value} on rank {', '.join(map(str, ranks))}" for value, ranks in ranks_of.items()]
            differing.append(f"{key}: {' but '.join(values)}")
    if differing:
        raise AgreedError(
            f"the processes of this run do not agree. {'; '.join(differing)}. Start them with the same options "
            f"on every machine, and let all see the same stores and the same output_dir={output_dir!r}"
        )


def find_checkpoint(config: TrainConfig) -> Path | None:
    """Return the checkpoint to continue from, as `resume` says."""
    checkpoints = RunCheckpoints(Path(config.output_dir) / "checkpoints", config.checkpoint.keep_last)
    checkpoints.put_back()
    if config.resume == "auto":
        return checkpoints.newest_complete()
    if config.resume == "none":
        if checkpoints.steps():
            raise UserError(
                f"resume=none: {checkpoints.folder} holds checkpoints already; remove them, choose another output_dir, "
                "or continue with --resume auto"
            )
        return None
    path = Path(config.resume)
    if not path.is_dir():
        raise UserError(f"resume={config.resume!r}: no such folder; use auto, none or a checkpoint's path")
    _check_checkpoint(path, "resume")
    newest = checkpoints.newest_complete()
    if newest and newest.resolve() != path.resolve():
        raise UserError(
            f"resume={config.resume!r}: {checkpoints.folder} holds another newest checkpoint, {newest.name}; continue "
            "from that with --resume auto, choose another output_dir, or remove what is newer to go back"
        )
    return path


def _check_checkpoint(path: Path, key: str) -> None:
    try:
        read_config(path)
        verify_manifest(path)
    except UserError as error:
        raise UserError(f"{key}={str(path)!r}: {error}") from None


def complete_model_config(config: TrainConfig) -> None:
    """Fill in what the model config takes from files: prompt templates, windows and the layers that get LoRA."""
    for task, file in config.data.prompt_files.items():
        source = f"data.prompt_files.{task}={file!r}"
        config.model.templates[task] = read_text(Path(file), source).rstrip("\n")
        check_template(config.model.templates[task], source, needs_prompt=task != UNDERSTANDING)
    modules = read_json(Path(config.lora_modules))
    windows = read_json(Path(config.model_windows))
    for side in ("encoder", "decoder"):
        if not getattr(config.model, f"{side}_max_tokens"):
            setattr(config.model, f"{side}_max_tokens", windows.get(getattr(config.model, side), 0))
        if side == "decoder" and not config.model.decoder_native_window:
            config.model.decoder_native_window = windows.get(config.model.decoder, 0)
        key = f"{side}_lora_targets"
        if getattr(config.model, f"{side}_lora_rank") and not getattr(config.model, key):
            model_type = load_config(config.model, side).model_type
            if model_type not in modules.get(side, {}):
                raise UserError(
                    f"{config.lora_modules}: no entry {side}.{model_type}; add one, or name the layers in model.{key}"
                )
            setattr(config.model, key, modules[side][model_type])


def check_same_model(config: E2LLMConfig, checkpoint: Path) -> None:
    """Refuse to continue a checkpoint with a model of another make.

    Raises:
        UserError: an option of the model differs.
    """
    # What the decoder could read alone makes no other model, and checkpoints may be older than the option.
    if differing := _differences(config, checkpoint, except_for={"decoder_native_window"}):
        raise UserError(
            f"{checkpoint} is of another model ({differing}); restore these options or use another output_dir"
        )


def check_same_weights(config: E2LLMConfig, checkpoint: Path) -> None:
    """Refuse to start with the weights of a model that this one cannot be: of other backbones, adapter or LoRA.

    Raises:
        UserError: such an option of the model differs.
    """
    if differing := _differences(config, checkpoint, except_for=FREE_TO_CHANGE):
        raise UserError(f"init_from: {checkpoint} is of another model ({differing}); take over these options from it")


def _differences(config: E2LLMConfig, checkpoint: Path, except_for: set[str]) -> str:
    saved = read_config(checkpoint)
    pairs = {
        item.name: (getattr(saved, item.name), getattr(config, item.name))
        for item in dataclasses.fields(saved)
        if item.name not in except_for
    }
    return "; ".join(f"model.{key}: saved {old!r}, now {new!r}" for key, (old, new) in pairs.items() if old != new)


def write_config(config: TrainConfig, engine: str, num_processes: int) -> None:
    """Write every resolved option, the launch, the versions and the git revision to config.json of the run."""
    content = {
        "config": dataclasses.asdict(config),
        "launch": {"engine": engine, "num_processes": num_processes},
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES},
        "git_revision": _git_revision(),
    }
    atomic_write_text(Path(config.output_dir) / CONFIG_FILE, json.dumps(content, indent=2) + "\n")


def _git_revision() -> str | None:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:  # git is not installed
        return None
    return result.stdout.strip() or None


def _describe(model: E2LLM, data: StepDataset, config: TrainConfig) -> None:
    store, plan = data.store, data.plan
    trained = {"adapter": 0, "LoRA": 0}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            trained["LoRA" if "lora_" in name else "adapter"] += parameter.numel()
    frozen = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    logger.info(
        "trained: %.2f M in the adapter, %.2f M in LoRA; frozen: %.1f M",
        trained["adapter"] / 1e6,
        trained["LoRA"] / 1e6,
        frozen / 1e6,
    )
    numbers_of_contexts = dict.fromkeys(plan.batch_size("reasoning", index)[1] for index in range(len(plan.stages)))
    logger.info(
        "data: %d contexts, %d chunks, %d prompts; %d steps of %d windows or %s contexts; threads: %d",
        store.num_contexts,
        int(store.num_chunks.sum()),
        store.num_examples,
        config.num_steps,
        config.data.understanding_batch_size,
        " or ".join(map(str, numbers_of_contexts)),
        torch.get_num_threads(),
    )
