"""ROUGE of summaries by the rouge-score package, and the SCROLLS geometric mean ("G-mean").

python -m evaluate.rouge_sum --predictions outputs/demo/eval/predictions.jsonl --task qmsum
"""

import functools
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import Score

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from evaluate.aggregate import Metric
from evaluate.command_line import build_parser, run_metrics
from evaluate.rouge_longbench import LONGBENCH_ROUGE_L
from utils.common_utils import UserError, run_cli

ROUGE_KEYS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
GEOMETRIC_MEAN_KEYS = ("rouge1", "rouge2", "rougeL")

# A sentence ends at . ! or ? (with closing quotes or brackets) before white space and what can begin a sentence.
_SENTENCE_END = re.compile(r"(?<=[.!?])([\"'”’)\]]*)\s+(?=[\"'“‘(\[]*[A-Z0-9])")
# ... unless the stop belongs to one of these, or to an initial.
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'“‘])(?:Mr|Mrs|Ms|Dr|Prof|Rev|Gen|Sen|Rep|Gov|St|Sr|Jr|vs|No|Fig|Sec|e\.g|i\.e|cf|al|[A-Z])\.$"
)


def split_sentences(text: str) -> list[str]:
    """Split text at line ends and sentence ends; the pieces hold all words of the text, in order.

    A small rule-based stand-in for nltk's punkt, which needs a downloaded model. Only rougeLsum sees the difference.
    """
    sentences = []
    for line in text.splitlines():
        start = 0
        for match in _SENTENCE_END.finditer(line):
            sentence = line[start : match.end(1)]
            if not _ABBREVIATION.search(sentence):
                sentences.append(sentence)
                start = match.end()
        sentences.append(line[start:])
    return [sentence.strip() for sentence in sentences if sentence.strip()]


@functools.cache
def _scorer(use_stemmer: bool) -> RougeScorer:
    return RougeScorer(list(ROUGE_KEYS), use_stemmer=use_stemmer)


def best_rouge(
    prediction: str, references: Sequence[str], *, use_stemmer: bool = False, split: bool = False
) -> dict[str, Score]:
    """Return precision, recall and F per ROUGE key, of the reference with the best F for that key.

    Args:
        use_stemmer: reduce words longer than three letters by the Porter stemmer.
        split: put each sentence on a line of its own (`split_sentences`) before scoring; otherwise rougeLsum takes the
            lines of the text as they are for its sentences. The other keys are the same either way.

    Raises:
        UserError: there is no reference.
    """
    if not references:
        raise UserError(f"no reference to score the prediction {prediction[:60]!r} against; leave the example out")
    if split:
        prediction = "\n".join(split_sentences(prediction))
        references = ["\n".join(split_sentences(reference)) for reference in references]
    return _scorer(use_stemmer).score_multi(references, prediction)


def rouge_scores(
    prediction: str, references: Sequence[str], *, use_stemmer: bool = False, split: bool = False
) -> dict[str, float]:
    """Return the F in [0, 1] of rouge1, rouge2, rougeL and rougeLsum, each the best over references (SCROLLS).

    Arguments and errors as for `best_rouge`.
    """
    best = best_rouge(prediction, references, use_stemmer=use_stemmer, split=split)
    return {key: float(best[key].fmeasure) for key in ROUGE_KEYS}


def geometric_mean(means: Mapping[str, np.ndarray | float]) -> np.ndarray | float:
    """Return (R1 * R2 * RL)^(1/3) of the *means* over examples of ROUGE-1, -2 and -L (SCROLLS).

    A mean of single examples' geometric means would be lower: one example without a common bigram counts 0 there.
    """
    product = means["rouge1"] * means["rouge2"] * means["rougeL"]
    return product ** (1.0 / len(GEOMETRIC_MEAN_KEYS))


def _rouge_metric(name: str, use_stemmer: bool) -> Metric:
    def score(record: dict) -> dict[str, float]:
        if not record["references"]:
            return dict.fromkeys(ROUGE_KEYS, float("nan"))
        return rouge_scores(record["prediction"], record["references"], use_stemmer=use_stemmer, split=True)

    return Metric(
        name,
        ROUGE_KEYS,
        score,
        derived_keys=("geometric_mean",),
        derive=lambda means: {"geometric_mean": geometric_mean(means)},
        primary_key="geometric_mean",
    )


ROUGE = _rouge_metric("rouge", use_stemmer=False)
ROUGE_STEMMED = _rouge_metric("rouge_stemmed", use_stemmer=True)


def main() -> None:
    parser = build_parser(__doc__, (ROUGE, ROUGE_STEMMED, LONGBENCH_ROUGE_L), default="rouge")
    run_metrics(parser.parse_args())


if __name__ == "__main__":
    run_cli(main)
