"""Every option of training, as dataclasses; `utils.config_parsing` reads them. Those of evaluation: `pefts.eval_args`.

The options of a part stand where the part is (`model.config`, `model.compute`, `dataset.batch_plan`), since those
packages import nothing from here; this module adds the rest and puts them together.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Literal

from dataset.batch_plan import Stage
from model.compute import ComputeConfig
from model.config import E2LLMConfig
from utils.config_parsing import require


@dataclass
class AdapterInitConfig:
    """How the adapter's projection starts."""

    method: Literal["random", "ridge"] = "random"
    """`random`: at the spread of the decoder's embeddings. `ridge`: in closed form, by ridge regression from the pooled
    chunks to the mean of the decoder's input embeddings of their tokens."""
    num_texts: int = 6000
    """Chunks of the training data that the regression is fitted on."""
    ridge: float = 1e-3
    """Regulariser of the regression, per chunk."""
    rarity: float = 1e-3
    """Weight of a token in its chunk's mean: rarity / (rarity + its share of all tokens). The smaller it is, the more
    rare words count."""

    def __post_init__(self):
        require(self.num_texts >= 2, "adapter_init.num_texts", self.num_texts, "must be at least 2")
        for key in ("ridge", "rarity"):
            require(getattr(self, key) > 0, f"adapter_init.{key}", getattr(self, key), "must be above 0")


@dataclass
class DataConfig:
    """What is trained on."""

    train: list[str]
    """Stores made by preprocess/preshuffle_data_and_chunk.py."""
    validation: list[str] = field(default_factory=list)
    """Stores of held-out data; empty: no validation, and the last checkpoint counts as the best."""
    prompt_files: dict[str, str] = field(default_factory=dict)
    """Prompt template file of each task, of `understanding`, `cued` and `default`."""
    understanding_batch_size: int = 32
    """Windows of chunks restated in one optimizer step, as a whole or by cues, over all processes."""
    reasoning_batch_size: int = 32
    """Contexts whose prompts are answered in one optimizer step, over all processes."""
    prompts_per_context: int = 1
    """Most prompts answered from one encoding of a context."""
    pack_prompts: bool = True
    """Put what the prompts of one context have in common through the decoder once: the same result for less work. Where
    the attention cannot (flash, flex, sliding windows), each prompt keeps a row of its own."""
    micro_batch_size: int = 8
    """Windows or prompts that one process puts through the model at once; changes memory, not the result."""
    max_answer_tokens: int = 1024
    """Answer tokens trained on; what a longer answer has more is left out and counted."""
    stages: list[Stage] = field(default_factory=lambda: [Stage()])
    """The curriculum, one stage after another."""
    num_workers: int = 1
    """Background processes that prepare batches; 0: in the training process itself."""
    num_validation_batches: int = 8
    """Batches of each objective in a validation, always the same ones."""

    def __post_init__(self):
        at_least_one = ("understanding_batch_size", "reasoning_batch_size", "prompts_per_context", "micro_batch_size")
        for key in (*at_least_one, "max_answer_tokens", "num_validation_batches"):
            require(getattr(self, key) >= 1, f"data.{key}", getattr(self, key), "must be at least 1")
        require(self.num_workers >= 0, "data.num_workers", self.num_workers, "must not be negative")
        require(len(self.train) > 0, "data.train", self.train, "name at least one store")
        require(len(self.stages) > 0, "data.stages", self.stages, "name at least one stage")


@dataclass
class OptimConfig:
    """AdamW and its schedule, counted in optimizer steps."""

    learning_rate: float = 1e-4
    """Peak learning rate of the decoder's LoRA, and of the encoder's where it has none of its own."""
    encoder_learning_rate: float = 0.0
    """Peak learning rate of the encoder's LoRA; 0: `learning_rate`."""
    adapter_learning_rate: float = 1e-4
    """Peak learning rate of the adapter. On the demo's models 1e-4 undoes what `adapter_init` has fitted, 1e-5 does not
    (docs/training_notes.md)."""
    weight_decay: float = 0.01
    """AdamW's decay of weight matrices; norms, biases and seeds have none."""
    beta1: float = 0.9
    """AdamW's decay of the gradient's running mean."""
    beta2: float = 0.999
    """AdamW's decay of the squared gradient's running mean."""
    eps: float = 1e-8
    """AdamW's epsilon."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm, taken over all trained parameters."""
    num_warmup_steps: int = 100
    """Steps in which the learning rates rise from zero to their peak; fewer than num_steps."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rates fall after the warm-up."""
    final_learning_rate_ratio: float = 0.0
    """Learning rates at the last step, as a share of their peak."""

    def __post_init__(self):
        for key in ("learning_rate", "adapter_learning_rate", "eps", "max_grad_norm"):
            require(getattr(self, key) > 0, f"optim.{key}", getattr(self, key), "must be above 0")
        rate = self.encoder_learning_rate
        require(rate >= 0, "optim.encoder_learning_rate", rate, "must not be negative; 0 means learning_rate")
        for key in ("beta1", "beta2"):
            require(0 <= getattr(self, key) < 1, f"optim.{key}", getattr(self, key), "must lie in [0, 1)")
        require(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "must not be negative")
        require(self.num_warmup_steps >= 0, "optim.num_warmup_steps", self.num_warmup_steps, "must not be negative")
        ratio = self.final_learning_rate_ratio
        require(0 <= ratio <= 1, "optim.final_learning_rate_ratio", ratio, "must lie between 0 and 1")


@dataclass
class LoggingConfig:
    """What is written down, and how often."""

    every: int = 10
    """Steps between two lines of the training log."""
    shuffled_loss: bool = True
    """Once between two lines of the log compute a step's loss under the chunk tokens of other contexts too: where the
    gap between the two is zero, the decoder does not read them."""
    tensorboard: bool = True
    """Write TensorBoard files."""
    wandb_project: str | None = None
    """Report to this Weights & Biases project too (needs `pip install wandb`)."""

    def __post_init__(self):
        require(self.every >= 1, "logging.every", self.every, "must be at least 1")


@dataclass
class CheckpointConfig:
    """When checkpoints are written and which are kept, when the model is validated and when it has learned enough."""

    save_every: int = 500
    """Steps between two checkpoints; the last step is always saved."""
    validate_every: int = 500
    """Steps between two validations; the last step is always validated."""
    keep_last: int = 2
    """Newest checkpoints kept; the best one is kept besides."""
    early_stopping_patience: int = 0
    """Validations without a better loss before the training stops; 0: never. Needs data.validation."""

    def __post_init__(self):
        for key in ("save_every", "validate_every", "keep_last"):
            require(getattr(self, key) >= 1, f"checkpoint.{key}", getattr(self, key), "must be at least 1")
        patience = self.early_stopping_patience
        require(patience >= 0, "checkpoint.early_stopping_patience", patience, "must not be negative")


@dataclass
class TrainConfig:
    """A training run."""

    output_dir: str
    """Folder of the run: config, logs, checkpoints."""
    model: E2LLMConfig
    """What the model is made of."""
    data: DataConfig
    """What is trained on."""
    num_steps: int
    """Optimizer steps in all."""
    seed: int = 0
    """Decides the order of the data, the start of the adapter and LoRA, and dropout."""
    timeout_seconds: int = 1800
    """Seconds that a process waits for the others in an exchange before it gives the run up."""
    resume: str = "auto"
    """`auto`: continue from the newest complete checkpoint of output_dir, if there is one; `none`: start anew, which a
    folder with checkpoints refuses; or the path of a checkpoint."""
    init_from: str | None = None
    """A checkpoint whose adapter and LoRA a new run starts with, on other data or with other options of training; both
    must be of the same make, and so the backbones, while chunks, windows, dropout and templates may be others. `resume`
    goes on with a run instead."""
    lora_modules: str = "configs/lora_modules.json"
    """File with the linear layers that get LoRA, by side and model type."""
    model_windows: str = "configs/model2maxlen.json"
    """File with the windows of models, in tokens by their reference, where a model's own config says something else."""
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    """How the model is computed."""
    adapter_init: AdapterInitConfig = field(default_factory=AdapterInitConfig)
    """How the adapter's projection starts."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimizer."""
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    """What is written down."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints and validation."""

    def __post_init__(self):
        require(self.num_steps >= 1, "num_steps", self.num_steps, "must be at least 1")
        require(0 <= self.seed < 2**32, "seed", self.seed, "must lie between 0 and 2**32 - 1")
        require(bool(self.output_dir), "output_dir", repr(self.output_dir), "name a folder")
        require(self.timeout_seconds >= 1, "timeout_seconds", self.timeout_seconds, "must be at least 1")
        warmup = self.optim.num_warmup_steps
        require(
            warmup < self.num_steps,
            "optim.num_warmup_steps",
            warmup,
            f"must be below num_steps={self.num_steps}, or the learning rates would never reach their peak",
        )
        patience = self.checkpoint.early_stopping_patience
        require(
            patience == 0 or bool(self.data.validation),
            "checkpoint.early_stopping_patience",
            patience,
            "there is nothing to validate on; name stores in data.validation, or set it to 0",
        )
        staged = sum(stage.steps for stage in self.data.stages[:-1])
        require(
            staged < self.num_steps or len(self.data.stages) == 1,
            "num_steps",
            self.num_steps,
            f"the stages before the last take {staged} steps, so the last would never begin",
        )
        last = self.data.stages[-1].steps
        require(
            last in (0, self.num_steps - staged),
            "num_steps",
            self.num_steps,
            f"the stages take {staged} + {last} steps; the last one lasts to the end, so leave its steps out",
        )

    def options_of_result(self) -> dict[str, object]:
        """Return the options of data and optimizer that decide what a run comes to, by key, as JSON has them."""
        groups = {"data": dataclasses.asdict(self.data), "optim": dataclasses.asdict(self.optim)}
        options = {f"{group}.{key}": value for group, values in groups.items() for key, value in values.items()}
        for key in ("data.micro_batch_size", "data.num_workers", "data.pack_prompts"):
            del options[key]
        return json.loads(json.dumps(options | {"num_steps": self.num_steps, "seed": self.seed}))
