"""ROUGE as LongBench v1 has it, after the package `rouge` 1.0.1: another metric than rouge-score's, under its names.

    F = 2PR / (P + R + 1e-8) over *sets*: a word or pair of words counts once however often it occurs.

Case counts, words are what white space separates (punctuation stays attached), and a sentence ends at every "." (3.14
is two sentences). ROUGE-L is of summary level: the different words in any longest common subsequence of a sentence of
the reference with a sentence of the prediction, over the different words of each text.
"""

from collections.abc import Sequence

from evaluate.aggregate import max_over_references, text_metric


def rouge_package_scores(prediction: str, reference: str) -> dict[str, dict[str, float]]:
    """Return `{"rouge-1" | "rouge-2" | "rouge-l": {"r", "p", "f"}}` in [0, 1]; all 0 where a text is empty.

    The package fails on an empty text, and where the words of a pair of sentences less what they have in common are
    more than about 1,000 (its recursion is as deep as that); LongBench counts a failure 0. Here the first counts 0 and
    the second is computed.
    """
    predicted, referred = _sentences(prediction), _sentences(reference)
    scores = {}
    for key, n in (("rouge-1", 1), ("rouge-2", 2)):
        ours, theirs = _ngrams(predicted, n), _ngrams(referred, n)
        scores[key] = _score(len(ours & theirs), len(ours), len(theirs))
    common: set[str] = set()
    for sentence in referred:
        for candidate in predicted:
            common |= _common_subsequence(sentence, candidate)
    scores["rouge-l"] = _score(len(common), len(_ngrams(predicted, 1)), len(_ngrams(referred, 1)))
    return scores


def longbench_rouge_l(prediction: str, references: Sequence[str]) -> float:
    """Return the F of ROUGE-L in [0, 1], best over references: LongBench v1's figure for GovReport and QMSum."""
    return max_over_references(lambda p, r: rouge_package_scores(p, r)["rouge-l"]["f"], prediction, references)


def _sentences(text: str) -> list[list[str]]:
    """Split at full stops, then at spaces; as in the package, white space alone is a sentence of one empty word."""
    return [" ".join(piece.split()).split(" ") for piece in text.split(".") if piece]


def _ngrams(sentences: list[list[str]], n: int) -> set[tuple[str, ...]]:
    words = [word for sentence in sentences for word in sentence]
    return {tuple(words[start : start + n]) for start in range(len(words) - n + 1)}


def _score(num_common: int, num_predicted: int, num_referred: int) -> dict[str, float]:
    precision = num_common / num_predicted if num_predicted else 0.0
    recall = num_common / num_referred if num_referred else 0.0
    return {"r": recall, "p": precision, "f": 2.0 * precision * recall / (precision + recall + 1e-8)}


def _common_subsequence(ours: list[str], theirs: list[str]) -> set[str]:
    """Return the words of a longest common subsequence; of several, the one that the package finds."""
    lengths = [[0] * (len(theirs) + 1)]
    for word in ours:
        row, above = [0], lengths[-1]
        for column, other in enumerate(theirs):
            row.append(above[column] + 1 if word == other else max(above[column + 1], row[column]))
        lengths.append(row)
    words = set()
    i, j = len(ours), len(theirs)
    while i and j:
        if ours[i - 1] == theirs[j - 1]:
            words.add(ours[i - 1])
            i, j = i - 1, j - 1
        elif lengths[i - 1][j] > lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return words


LONGBENCH_ROUGE_L = text_metric("longbench_rouge_l", longbench_rouge_l)
