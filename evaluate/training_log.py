"""The losses in a training run's `metrics.jsonl`, as curves."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from utils.common_utils import read_jsonl

OBJECTIVES = ("understanding", "cued", "reasoning")
LOGGED_AS = {"points": "loss", "shuffled_points": "shuffled_loss", "gap_points": "shuffled_gap"}


@dataclass
class Curve:
    """The losses of one objective on one split over optimizer steps, in nats a labelled token."""

    points: dict[int, float] = field(default_factory=dict)
    """Step -> loss."""
    shuffled_points: dict[int, float] = field(default_factory=dict)
    """Step -> loss on the same text under another context's chunk tokens, where it was measured."""
    gap_points: dict[int, float] = field(default_factory=dict)
    """Step -> how much higher that is than the loss of the same batches under their own."""


def read_training_curves(path: Path) -> dict[tuple[str, str], Curve]:
    """Read the curves per (split, objective), steps in order.

    Lines without a step, a split, an objective of ours or a loss are about something else and are passed over. A step
    that was logged twice (a run resumed from before it) counts as logged last.

    Raises:
        UserError: the file is missing, or a line is not a JSON object.
    """
    curves: dict[tuple[str, str], Curve] = {}
    for record in read_jsonl(path):
        step, key = record.get("step"), (record.get("split"), record.get("objective"))
        if not isinstance(step, int) or key[0] not in ("train", "validation") or key[1] not in OBJECTIVES:
            continue
        curve = curves.setdefault(key, Curve())
        for name, points in vars(curve).items():
            if _is_finite_number(record.get(LOGGED_AS[name])):
                points[step] = float(record[LOGGED_AS[name]])
    for curve in curves.values():
        for name, points in vars(curve).items():
            setattr(curve, name, dict(sorted(points.items())))
    return {key: curve for key, curve in curves.items() if curve.points or curve.shuffled_points}


def _is_finite_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
