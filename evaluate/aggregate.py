"""From scores of single examples to percentages with intervals: what a metric is, and how a group is summarised.

    predictions ──Metric.score──▶ ScoreTable [n, labels] ──rows of a group──▶ {"f1": {value, low, high, n}, ...}

A label is `metric` where a metric has one score, else `metric.key` (`rouge.rouge1`). NaN in the table means that the
score does not apply to that example (no reference; not of the hard subset): it is left out of that label's mean.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from utils.common_utils import UserError

NUM_RESAMPLES = 1000
INTERVAL_PERCENTILES = (2.5, 97.5)
# Resamples are drawn in blocks of about this many examples in all, so that memory does not grow with 1,000 x n.
_MAX_DRAWS_PER_BLOCK = 4_000_000


@dataclass(frozen=True)
class Metric:
    """A named score of a prediction record, and what is derived from the means of its keys."""

    name: str
    """The name a task's configuration and the command lines use."""
    keys: tuple[str, ...]
    """Names of the values `score` returns; a key equal to `name` is labelled by the name alone."""
    score: Callable[[dict], dict[str, float]]
    """Prediction record -> one value per key, a fraction (1 is best), NaN where the key does not apply."""
    derived_keys: tuple[str, ...] = ()
    """Names of the values `derive` returns."""
    derive: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None
    """Means per key, arrays of any one shape -> one array of that shape per derived key."""
    primary_key: str | None = None
    """The key to show where there is room for one; the first of `keys` unless given."""

    def label(self, key: str) -> str:
        return key if key == self.name else f"{self.name}.{key}"

    @property
    def labels(self) -> list[str]:
        return [self.label(key) for key in (*self.keys, *self.derived_keys)]

    @property
    def primary_label(self) -> str:
        return self.label(self.primary_key or self.keys[0])


def text_metric(name: str, function: Callable[[str, Sequence[str]], float]) -> Metric:
    """Make a metric of a pure function on (prediction, references); it does not apply where there is no reference."""

    def score(record: dict) -> dict[str, float]:
        return {name: function(record["prediction"], record["references"]) if record["references"] else float("nan")}

    return Metric(name, (name,), score)


def max_over_references(score: Callable[[str, str], float], prediction: str, references: Sequence[str]) -> float:
    """Return the best score of `prediction` against any one of `references`.

    Raises:
        UserError: there is no reference, so that no score is defined.
    """
    if not references:
        raise UserError(f"no reference to score the prediction {prediction[:60]!r} against; leave the example out")
    return max(score(prediction, reference) for reference in references)


@dataclass(frozen=True)
class ScoreTable:
    """Scores of n predictions by the given metrics, in the order of the predictions."""

    metrics: tuple[Metric, ...]
    values: dict[str, np.ndarray]
    """Label -> [n] fractions, NaN where the label does not apply."""
    num_predictions: int


def score_examples(predictions: Sequence[dict], metrics: Sequence[Metric]) -> ScoreTable:
    """Score every prediction by every metric, once; groups are then summarised from the table.

    Raises:
        UserError: a metric cannot be applied to a record; the message names its task and id.
    """
    values = {m.label(key): np.empty(len(predictions)) for m in metrics for key in m.keys}
    for row, record in enumerate(predictions):
        for metric in metrics:
            try:
                scores = metric.score(record)
            except UserError as error:
                raise UserError(f"task {record['task']!r}, id {record['id']!r}: {error}") from None
            for key in metric.keys:
                values[metric.label(key)][row] = scores[key]
    return ScoreTable(tuple(metrics), values, len(predictions))


def summarise(table: ScoreTable, rows: Sequence[int] | np.ndarray, seed: int = 0) -> dict:
    """Summarise the examples at `rows`: percentages with 95 % bootstrap intervals.

    The interval is the 2.5th to 97.5th percentile over 1,000 resamples of the examples; what is derived from means (the
    geometric mean of ROUGE) is derived again within each resample. The same seed serves every group, so a group's
    interval does not depend on which other groups are asked for.

    Returns:
        `{"n": rows, "scores": {label: {"value", "low", "high", "n"}}}` in percent; `n` inside a score counts the
        examples that it applies to. `value` is None where n = 0, the interval is None where n < 2.
    """
    rows = np.asarray(rows, dtype=np.int64)
    base_labels = list(table.values)
    matrix_NL = np.stack([table.values[label][rows] for label in base_labels], axis=1)
    applies_NL = ~np.isnan(matrix_NL)
    counts = dict(zip(base_labels, applies_NL.sum(axis=0).tolist(), strict=True))
    means_L = _means(np.ones((1, len(rows))), matrix_NL, applies_NL)
    means = _with_derived(table.metrics, base_labels, means_L)
    resampled = _with_derived(table.metrics, base_labels, _bootstrap_means(matrix_NL, applies_NL, seed))
    scores = {}
    for metric in table.metrics:
        smallest = min(counts[metric.label(key)] for key in metric.keys)
        for label in metric.labels:
            n = counts.get(label, smallest)
            low, high = _interval(resampled[label]) if n >= 2 else (None, None)
            scores[label] = {"value": 100 * float(means[label][0]) if n else None, "low": low, "high": high, "n": n}
    return {"n": len(rows), "scores": scores}


def summarise_groups(table: ScoreTable, groups: Sequence[Hashable], seed: int = 0) -> dict[Hashable, dict]:
    """Summarise the examples of each group; `groups` names the group of every prediction, in order."""
    rows_by_group: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        rows_by_group.setdefault(group, []).append(row)
    return {group: summarise(table, rows, seed) for group, rows in rows_by_group.items()}


def _bootstrap_means(matrix_NL: np.ndarray, applies_NL: np.ndarray, seed: int) -> np.ndarray:
    """Return the means [resamples, L] of resamples of the N examples with replacement."""
    num_examples = len(matrix_NL)
    if num_examples < 2:
        return np.full((0, matrix_NL.shape[1]), np.nan)
    rng = np.random.default_rng(seed)
    block = max(1, min(NUM_RESAMPLES, _MAX_DRAWS_PER_BLOCK // num_examples))
    means = []
    for start in range(0, NUM_RESAMPLES, block):
        num_rows = min(block, NUM_RESAMPLES - start)
        drawn_RN = rng.integers(0, num_examples, (num_rows, num_examples))
        drawn_RN += np.arange(num_rows)[:, None] * num_examples
        # How often each example was drawn: a mean over a resample is then a product of matrices.
        times_RN = np.bincount(drawn_RN.ravel(), minlength=num_rows * num_examples).reshape(num_rows, num_examples)
        means.append(_means(times_RN.astype(np.float64), matrix_NL, applies_NL))
    return np.concatenate(means)


def _means(times_RN: np.ndarray, matrix_NL: np.ndarray, applies_NL: np.ndarray) -> np.ndarray:
    """Return means [R, L] of the values that apply, each example counted `times_RN` times; NaN where none applies."""
    totals_RL = times_RN @ np.where(applies_NL, matrix_NL, 0.0)
    weights_RL = times_RN @ applies_NL.astype(np.float64)
    return np.divide(totals_RL, weights_RL, out=np.full_like(totals_RL, np.nan), where=weights_RL > 0)


def _with_derived(metrics: Sequence[Metric], labels: Sequence[str], means_RL: np.ndarray) -> dict[str, np.ndarray]:
    means = {label: means_RL[:, column] for column, label in enumerate(labels)}
    for metric in metrics:
        if metric.derive is not None:
            derived = metric.derive({key: means[metric.label(key)] for key in metric.keys})
            means.update({metric.label(key): values for key, values in derived.items()})
    return means


def _interval(resampled_R: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval in percent; resamples to which the score did not apply at all are left out."""
    low, high = np.nanpercentile(resampled_R, INTERVAL_PERCENTILES)
    return 100 * float(low), 100 * float(high)
