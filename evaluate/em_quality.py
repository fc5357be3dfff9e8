"""Exact match, and the accuracy of multiple-choice answers (QuALITY): overall, hard subset, SAT score.

python -m evaluate.em_quality --predictions outputs/demo/eval/predictions.jsonl --task quality
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from evaluate.aggregate import Metric, max_over_references, text_metric
from evaluate.command_line import build_parser, run_metrics
from evaluate.text_normalization import normalize_squad
from utils.common_utils import UserError, run_cli

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# The first line is nothing but a letter: "B", "(b)", "**B**", "Answer: B".
_BARE_LETTER = re.compile(r"^\W*(?:(?i:answer|option|choice)\b\W*)?([A-Za-z])[^\w\n]*(?:\n|$)")
# Where a letter is marked as the answer, the surest form first. A letter followed by another word is no answer
# ("A man", "the answer is A dog"), nor is an initial within a name ("D.H. Lawrence", "C. S. Lewis").
_MARKED_LETTERS = (
    re.compile(r"^\W*\(([A-Za-z])\)"),
    re.compile(r"^\W*([A-Za-z])\s*(?:[):\]]|\.(?!\s*[A-Z]\.\s))\W*(?:\s|$)"),
    re.compile(r"\b(?i:answer|option|choice)(?i:\s+is)?\s*:?\s*(?i:(?:option|choice)\s+)?[*\"']*[(\[]([A-Za-z])[)\]]"),
    re.compile(r"\b(?i:answer)(?i:\s+is)?\s*:?\s*(?i:(?:option|choice)\s+)?[*\"']*([A-Z])[*\"']*\s*(?:[.,:;\n]|$)"),
    re.compile(r"\b(?i:option|choice)\s+([A-Z])\b"),
)
_BRACKETED_LETTER = re.compile(r"\(([A-Za-z])\)")


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """Return 1.0 if `prediction` equals a reference after SQuAD normalisation, else 0.0.

    Texts that normalise to nothing are equal: never score the bare letters of multiple choice with it ("A" is an
    article, so that "A", "The" and "" all match); `multiple_choice_accuracy` is for those.
    """
    return max_over_references(lambda p, r: float(normalize_squad(p) == normalize_squad(r)), prediction, references)


def substring_exact_match(prediction: str, references: Sequence[str]) -> float:
    """Return 1.0 if a normalised reference occurs in the normalised prediction, else 0.0 (CEPE).

    It is a match of characters, not of words ("pineapple" holds "apple"), and a reference that normalises to nothing
    is always found.
    """
    return max_over_references(lambda p, r: float(normalize_squad(r) in normalize_squad(p)), prediction, references)


def parse_choice(prediction: str, options: Sequence[str]) -> int | None:
    """Return the index of the option that `prediction` chooses, or None if it chooses none or several.

    Tried in this order: a first line that is a letter alone; the text of one option and nothing else; a letter marked
    as the answer ("(B) ...", "B. ...", "the answer is B", "option B"); the text of one option within the prediction; a
    single bracketed letter. Texts are compared after SQuAD normalisation.
    """
    index = _only_index(_BARE_LETTER.findall(prediction), options)
    if index is None:
        index = _option_that_is(prediction, options)
    for pattern in _MARKED_LETTERS:
        if index is None:
            index = _only_index(pattern.findall(prediction), options)
    if index is None:
        index = _option_within(prediction, options)
    if index is None:
        index = _only_index(_BRACKETED_LETTER.findall(prediction), options)
    return index


def _only_index(letters: Sequence[str], options: Sequence[str]) -> int | None:
    """Return the option's index if all letters that name an option are the same, else None."""
    indices = {_LETTERS.index(letter.upper()) for letter in letters}
    indices = {index for index in indices if index < len(options)}
    return indices.pop() if len(indices) == 1 else None


def _option_that_is(prediction: str, options: Sequence[str]) -> int | None:
    normalized = normalize_squad(prediction)
    equal = [i for i, option in enumerate(options) if normalized and normalize_squad(option) == normalized]
    if not normalized:
        # "The" or "..." as an option normalises to nothing: fall back on the text as it stands.
        equal = [i for i, option in enumerate(options) if prediction.strip() and option.strip() == prediction.strip()]
    return equal[0] if len(equal) == 1 else None


def _option_within(prediction: str, options: Sequence[str]) -> int | None:
    text = f" {normalize_squad(prediction)} "
    padded = [f" {normalize_squad(option)} " for option in options]
    found = [i for i, option in enumerate(padded) if option.strip() and option in text]
    # "New York" is within "New York City": only the longest of nested options counts.
    longest = [i for i in found if not any(padded[i] in padded[j] and padded[i] != padded[j] for j in found)]
    return longest[0] if len(longest) == 1 else None


def gold_index(gold: str, options: Sequence[str]) -> int:
    """Return the index of the right option, given as a letter ("B", "(B)") or as the option's text.

    Raises:
        UserError: `gold` is neither.
    """
    index = _only_index(_BARE_LETTER.findall(gold), options)
    if index is None:
        index = _option_that_is(gold, options)
    if index is None:
        raise UserError(f"gold answer {gold!r} is neither a letter of the {len(options)} options nor the text of one")
    return index


def multiple_choice_accuracy(prediction: str, options: Sequence[str], gold: str) -> float:
    """Return 1.0 if `prediction` chooses the gold option by letter or by text, else 0.0 (no choice is wrong).

    Raises:
        UserError: `gold` names no option.
    """
    return float(parse_choice(prediction, options) == gold_index(gold, options))


def sat_score(prediction: str, options: Sequence[str], gold: str) -> float:
    """Return 1 for the right option, 0 for none, -1/(number of options - 1) for a wrong one.

    With four options the mean is the QuALITY leaderboard's (right - wrong/3) / N: guessing at random gives 0.

    Raises:
        UserError: `gold` names no option.
    """
    chosen = parse_choice(prediction, options)
    if chosen is None:
        return 0.0
    return 1.0 if chosen == gold_index(gold, options) else -1.0 / (len(options) - 1)


def _score_choice(record: dict) -> dict[str, float]:
    """Score a prediction record from `meta.options`, `meta.gold` (or the first reference) and `meta.difficult`."""
    meta, prediction = record["meta"], record["prediction"]
    options = meta.get("options")
    if not isinstance(options, list) or len(options) < 2 or not all(isinstance(option, str) for option in options):
        raise UserError(
            f"the metric 'accuracy' needs meta.options, a list of two or more texts, found {options!r}; score tasks"
            " without options by another metric, or leave them out with --task"
        )
    gold = meta.get("gold", record["references"][0] if record["references"] else None)
    if gold is None:
        return dict.fromkeys(ACCURACY.keys, float("nan"))
    accuracy = multiple_choice_accuracy(prediction, options, str(gold))
    return {
        "accuracy": accuracy,
        "hard": accuracy if meta.get("difficult") else float("nan"),
        "sat_score": sat_score(prediction, options, str(gold)),
        "no_choice": float(parse_choice(prediction, options) is None),
    }


EXACT_MATCH = text_metric("exact_match", exact_match)
SUBSTRING_EM = text_metric("substring_em", substring_exact_match)
ACCURACY = Metric("accuracy", ("accuracy", "hard", "sat_score", "no_choice"), _score_choice)


def main() -> None:
    parser = build_parser(__doc__, (ACCURACY, EXACT_MATCH, SUBSTRING_EM), default="accuracy")
    run_metrics(parser.parse_args())


if __name__ == "__main__":
    run_cli(main)
