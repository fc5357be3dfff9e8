"""Token F1 of question answering: SQuAD's (SCROLLS, LongBench v1), CEPE's, and TriviaQA's own.

python -m evaluate.f1_qa --predictions outputs/demo/eval/predictions.jsonl --by meta.kind
python -m evaluate.f1_qa --predictions predictions.jsonl --triviaqa_gold wikipedia-dev.json
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from evaluate.aggregate import max_over_references, text_metric
from evaluate.command_line import build_parser, read_selected, run_metrics
from evaluate.em_quality import EXACT_MATCH
from evaluate.text_normalization import normalize_squad, normalize_triviaqa
from utils.common_utils import UserError, atomic_write_text, read_json, run_cli

_WHOLE_ANSWERS = {"yes", "no", "noanswer"}


def token_f1(prediction: str, references: Sequence[str]) -> float:
    """Return the F1 in [0, 1] of the bags of SQuAD-normalised words, best over references.

    No common word gives 0, so two texts that normalise to nothing score 0 here although they match exactly.
    """
    return max_over_references(lambda p, r: _bag_f1(normalize_squad(p), normalize_squad(r)), prediction, references)


def first_line_f1(prediction: str, references: Sequence[str]) -> float:
    """Return `token_f1` of the first line that holds anything: LongBench v1's figure for TriviaQA.

    Its few-shot prompts make a model go on with the next example after its answer.
    """
    return token_f1(prediction.lstrip("\n").split("\n")[0], references)


def cepe_f1(prediction: str, references: Sequence[str]) -> float:
    """Return `token_f1` as CEPE (after HotpotQA) computes it: yes, no and noanswer count only as the whole answer."""

    def score(prediction: str, reference: str) -> float:
        normalized = {normalize_squad(prediction), normalize_squad(reference)}
        if len(normalized) == 2 and normalized & _WHOLE_ANSWERS:
            return 0.0
        return _bag_f1(normalize_squad(prediction), normalize_squad(reference))

    return max_over_references(score, prediction, references)


def triviaqa_exact_match(prediction: str, references: Sequence[str]) -> float:
    """Return 1.0 if `prediction` equals a reference after TriviaQA's normalisation, else 0.0."""
    return max_over_references(
        lambda p, r: float(normalize_triviaqa(p) == normalize_triviaqa(r)), prediction, references
    )


def triviaqa_f1(prediction: str, references: Sequence[str]) -> float:
    """Return the F1 in [0, 1] of the bags of words after TriviaQA's normalisation, best over references."""
    return max_over_references(
        lambda p, r: _bag_f1(normalize_triviaqa(p), normalize_triviaqa(r)), prediction, references
    )


def _bag_f1(prediction: str, reference: str) -> float:
    prediction_words, reference_words = prediction.split(), reference.split()
    num_common = (Counter(prediction_words) & Counter(reference_words)).total()
    if num_common == 0:
        return 0.0
    precision, recall = num_common / len(prediction_words), num_common / len(reference_words)
    return 2 * precision * recall / (precision + recall)


def read_triviaqa_gold(path: Path) -> dict[str, list[str]]:
    """Read the answers of a release file: key -> normalised aliases and human answers.

    The key is the question's id for the Wikipedia domain and `QuestionId--Filename`, one per evidence document, for the
    web domain, as in the official scorer.

    Raises:
        UserError: the file lacks a key of the release format (the hidden test files have no `Answer`).
    """
    release = read_json(path)
    gold: dict[str, list[str]] = {}
    try:
        for question in release["Data"]:
            answer = question["Answer"]
            references = answer["NormalizedAliases"] + [normalize_triviaqa(a) for a in answer.get("HumanAnswers", [])]
            if release["Domain"] == "Wikipedia":
                gold[question["QuestionId"]] = references
            else:
                for document in question.get("EntityPages", []) + question.get("SearchResults", []):
                    gold[f"{question['QuestionId']}--{document['Filename']}"] = references
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not a TriviaQA release file with answers ({error!r}); give a file such as wikipedia-dev.json"
        ) from None
    return gold


def evaluate_triviaqa(gold: Mapping[str, Sequence[str]], predictions: Mapping[str, str]) -> dict[str, float]:
    """Score predictions as TriviaQA's official scorer does: percentages over all of `gold`, a missing key scores 0.

    Returns:
        `exact_match` and `f1` (percent; 0 where gold is empty), `common` (keys in both), `denominator` and `gold_len`
        (keys in gold), `pred_len` (keys in predictions).
    """
    common = [key for key in gold if key in predictions]

    def percent(score: Callable[[str, Sequence[str]], float]) -> float:
        return 100.0 * sum(score(predictions[key], gold[key]) for key in common) / len(gold) if gold else 0.0

    return {
        "exact_match": percent(triviaqa_exact_match),
        "f1": percent(triviaqa_f1),
        "common": len(common),
        "denominator": len(gold),
        "pred_len": len(predictions),
        "gold_len": len(gold),
    }


F1 = text_metric("f1", token_f1)
FIRST_LINE_F1 = text_metric("first_line_f1", first_line_f1)
CEPE_F1 = text_metric("cepe_f1", cepe_f1)
TRIVIAQA_EM = text_metric("triviaqa_em", triviaqa_exact_match)
TRIVIAQA_F1 = text_metric("triviaqa_f1", triviaqa_f1)


def main() -> None:
    metrics = (F1, EXACT_MATCH, TRIVIAQA_EM, TRIVIAQA_F1, FIRST_LINE_F1, CEPE_F1)
    parser = build_parser(__doc__, metrics, default="f1,exact_match")
    parser.add_argument(
        "--triviaqa_gold",
        type=Path,
        help="a TriviaQA release file: score against it as the official scorer does, per task and mode; the ids of the"
        " predictions are its keys, and a question without a prediction counts 0",
    )
    arguments = parser.parse_args()
    if arguments.triviaqa_gold is None:
        run_metrics(arguments)
        return
    gold = read_triviaqa_gold(arguments.triviaqa_gold)
    predictions_by_part: dict[tuple[str, str], dict[str, str]] = {}
    for record in read_selected(arguments):
        predictions_by_part.setdefault((record["task"], record["mode"]), {})[record["id"]] = record["prediction"]
    results = [
        {"task": task, "mode": mode, **evaluate_triviaqa(gold, predictions)}
        for (task, mode), predictions in predictions_by_part.items()
    ]
    text = json.dumps(results, indent=2)
    print(text)
    if arguments.output is not None:
        atomic_write_text(arguments.output, text + "\n")


if __name__ == "__main__":
    run_cli(main)
