"""Published figures that a report shows beside its own, with their sources.

All are of E2LLM with GTE-large-en and Llama-2-7B-chat (arXiv 2409.06679, EMNLP 2025), in percent. They were measured on
the benchmark's own test data with models trained on the data set's training data; a figure of another model, another
split or another variant of the metric is to be read beside them, not against them.
"""

from dataclasses import dataclass

SOURCE = "E2LLM (arXiv 2409.06679)"


@dataclass(frozen=True)
class PublishedFigure:
    """A figure of a benchmark."""

    benchmark: str
    """Name that tasks refer to."""
    score: str
    """What was measured, in the paper's words."""
    value: float
    """In percent."""
    label: str
    """The label of `evaluate.scoring` that comes nearest to it."""
    ruler_group: str | None = None
    """For RULER, the group of `evaluate.ruler_table` that it is the mean of."""
    length: int | None = None
    """For RULER, the tokens of prompt and answer."""


PUBLISHED: tuple[PublishedFigure, ...] = (
    PublishedFigure("qmsum", "G-mean of ROUGE-1/2/L", 15.47, "rouge.geometric_mean"),
    PublishedFigure("govreport", "G-mean of ROUGE-1/2/L", 18.43, "rouge.geometric_mean"),
    PublishedFigure("triviaqa", "F1", 38.57, "triviaqa_f1"),
    PublishedFigure("longbench_v2", "accuracy, overall", 31.8, "longbench_v2"),
    PublishedFigure("ruler", "string match, NIAH", 60.66, "ruler", "NIAH", 8192),
    PublishedFigure("ruler", "string match, NIAH", 48.38, "ruler", "NIAH", 131072),
    PublishedFigure("ruler", "string match, QA", 34.5, "ruler", "QA", 65536),
    PublishedFigure("ruler", "string match, VT", 7.2, "ruler", "VT", 4096),
    PublishedFigure("ruler", "string match, VT", 8.6, "ruler", "VT", 32768),
)
"""Speed and memory are published too: 2.3 times faster inference and 37 % less GPU memory than its baselines."""
