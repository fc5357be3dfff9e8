"""Every option of evaluation, as dataclasses; `utils.config_parsing` reads them."""

from dataclasses import dataclass, field
from typing import Literal

from model.compute import ComputeConfig
from model.generation import MAX_POSITIONS
from utils.config_parsing import require

Mode = Literal[
    "model",
    "closed_book",
    "base_closed_book",
    "truncate_head",
    "truncate_tail",
    "truncate_middle",
    "truncate_to_budget_head",
    "truncate_to_budget_tail",
    "truncate_to_budget_middle",
    "retrieval_to_budget",
    "retrieval_to_window",
    "full",
]
"""What answers the prompts; `EvalConfig.modes` describes each."""
Published = Literal["qmsum", "govreport", "triviaqa", "longbench_v2", "ruler"]
"""Benchmarks of `evaluate.published.PUBLISHED`."""


@dataclass
class EvalTask:
    """A set of prompts to answer and score."""

    name: str
    """Name in the report."""
    data: list[str]
    """Stores made by preprocess/preshuffle_data_and_chunk.py with the model's chunk size."""
    metrics: list[str]
    """Metrics of `evaluate.scoring.METRICS`; the first is the one shown by length."""
    max_new_tokens: int = 64
    """Tokens an answer may take."""
    prompt_file: str | None = None
    """Prompt template instead of the one the model was trained with for the examples' task."""
    baseline_prompt_file: str | None = None
    """Prompt template of the baselines on the base decoder, which was not trained on this form of answer and may have
    to be told; by default the model's."""
    modes: list[Mode] | None = None
    """Modes of this task instead of the evaluation's `modes`."""
    published: Published | None = None
    """Benchmark whose published figures the report shows beside the scores."""
    max_contexts: int = 0
    """Contexts to take, from the beginning of the stores; 0: all."""

    def __post_init__(self):
        require(self.max_new_tokens >= 1, "tasks: max_new_tokens", self.max_new_tokens, "must be at least 1")
        require(self.max_contexts >= 0, "tasks: max_contexts", self.max_contexts, "must not be negative")
        require(len(self.metrics) > 0, "tasks: metrics", self.metrics, "name at least one")
        require(len(self.data) > 0, f"tasks: data of {self.name!r}", self.data, "name at least one store")
        _check_modes("tasks: modes", self.modes)


@dataclass
class ReconstructionConfig:
    """How well the decoder restates held-out chunks, with its own chunk tokens and with those of other chunks."""

    data: list[str] = field(default_factory=list)
    """Stores; empty: not measured."""
    windows: list[int] = field(default_factory=lambda: [1, 2])
    """Numbers of consecutive chunks to restate."""
    num_windows: int = 64
    """Windows measured of each number."""

    def __post_init__(self):
        require(all(w >= 1 for w in self.windows), "reconstruction.windows", self.windows, "must be at least 1")
        require(self.num_windows >= 1, "reconstruction.num_windows", self.num_windows, "must be at least 1")


@dataclass
class DiagnosticsConfig:
    """How the model reads: shown in the report, beside the scores (docs/recipe.md)."""

    recovery_chunks: int = 0
    """Chunks of reconstruction.data restated one by one, to see what is recovered of names, numbers and other words by
    their place in the chunk; 0: not measured."""
    attention_prompts: int = 0
    """Prompts of each task whose answer's attention to the chunks is measured, where `meta.evidence` names the lines of
    the context that answer them; 0: not measured."""
    attention_max_chunks: int = 64
    """Contexts of more chunks are left out of that."""

    def __post_init__(self):
        chunks, prompts, most = self.recovery_chunks, self.attention_prompts, self.attention_max_chunks
        require(chunks == 0 or chunks >= 2, "diagnostics.recovery_chunks", chunks, "must be 0 or at least 2")
        require(prompts >= 0, "diagnostics.attention_prompts", prompts, "must not be negative")
        require(most >= 2, "diagnostics.attention_max_chunks", most, "must be at least 2")


@dataclass
class SamplingConfig:
    """How answers are drawn."""

    do_sample: bool = False
    """Draw from the distribution; otherwise the likeliest token is taken each time."""
    temperature: float = 1.0
    """Divides the logits before drawing."""
    top_p: float = 1.0
    """Draw from the likeliest tokens that together have this probability."""
    num_beams: int = 1
    """Beams of a beam search."""
    seed: int = 0
    """Seed of the drawing; each batch gets its own from it, so an interrupted evaluation continues the same."""

    def __post_init__(self):
        require(self.temperature > 0, "sampling.temperature", self.temperature, "must be above 0")
        require(0 < self.top_p <= 1, "sampling.top_p", self.top_p, "must lie in (0, 1]")
        require(self.num_beams >= 1, "sampling.num_beams", self.num_beams, "must be at least 1")
        for key in ("temperature", "top_p"):
            value = getattr(self, key)
            require(self.do_sample or value == 1, f"sampling.{key}", value, "takes sampling.do_sample=true")


@dataclass
class EvalConfig:
    """An evaluation."""

    checkpoint: str
    """Checkpoint folder, such as outputs/RUN/checkpoints/best, or an export."""
    output_dir: str
    """Folder for predictions.jsonl, metrics.json, report.md and plots."""
    tasks: list[EvalTask]
    """What to answer and score."""
    modes: list[Mode] = field(default_factory=lambda: ["model"])
    """What answers. The trained model: `model` with the context, `closed_book` given the prompt alone. The base
    decoder without LoRA (docs/baselines.md): `base_closed_book`; the context cut to the decoder's window, keeping its
    beginning, its end or both (`truncate_head`, `truncate_tail`, `truncate_middle`), or to as many decoder positions as
    the model takes for it (`truncate_to_budget_*`); the chunks nearest to the prompt, to that budget or to the window
    (`retrieval_to_*`); and `full`, all of it, with RoPE scaled where it exceeds the window."""
    batch_size: int = 16
    """Prompts of one unit of work; the prompts of a context always belong to one unit."""
    max_positions: int = MAX_POSITIONS
    """Decoder positions whose keys and values are held at once; changes memory and speed, not the result. A single
    prompt may still take more."""
    long_contexts: Literal["refuse", "trim"] = "refuse"
    """What to do where a context's chunk tokens exceed the decoder's window: `refuse` ends the evaluation, naming the
    prompt; `trim` leaves chunk tokens out in the middle and counts them."""
    timed_prompts: int = 1
    """Prompts of each task, mode and power of two of chunks answered alone, from the text on, to measure time to first
    token, total time and peak memory."""
    fold_lora: bool = True
    """Fold LoRA into the weights before the model answers: faster. In bfloat16 that rounds the sums."""
    overwrite: bool = False
    """Start anew in a folder that holds the predictions of another configuration."""
    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    """Restating held-out chunks."""
    diagnostics: DiagnosticsConfig = field(default_factory=DiagnosticsConfig)
    """How the model reads."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How answers are drawn."""
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    """How the model is computed. In bfloat16 the texts may differ by rounding with batch_size; float32 avoids it."""

    def __post_init__(self):
        require(self.batch_size >= 1, "batch_size", self.batch_size, "must be at least 1")
        require(self.max_positions >= 1, "max_positions", self.max_positions, "must be at least 1")
        require(self.timed_prompts >= 0, "timed_prompts", self.timed_prompts, "must not be negative")
        require(len(self.tasks) > 0, "tasks", self.tasks, "name at least one")
        names = [task.name for task in self.tasks]
        require(len(set(names)) == len(names), "tasks", names, "two tasks have the same name")
        chunks = self.diagnostics.recovery_chunks
        rule = "is measured on reconstruction.data, which is empty; name a store of held-out data there"
        require(not chunks or bool(self.reconstruction.data), "diagnostics.recovery_chunks", chunks, rule)
        _check_modes("modes", self.modes)


def _check_modes(key: str, modes: list[Mode] | None) -> None:
    if modes is not None:
        require(len(modes) > 0, key, modes, "name at least one")
        require(len(set(modes)) == len(modes), key, modes, "names one twice")
