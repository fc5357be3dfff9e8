"""ROUGE per example, the SCROLLS aggregate, and sentence splitting."""

import json
import sys

import numpy as np
import pytest

from evaluate import rouge_sum
from evaluate.rouge_sum import best_rouge, geometric_mean, rouge_scores, split_sentences
from evaluate.scoring import score_predictions
from utils.common_utils import UserError


def test_known_values():
    # 4 of 5 and 4 of 6 words; bigrams 2 of 4 and 2 of 5; the common subsequence is "we met in may".
    scores = rouge_scores("we met in early may", ["we all met in may yesterday"])
    assert scores["rouge1"] == pytest.approx(2 * 0.8 * (4 / 6) / (0.8 + 4 / 6))
    assert scores["rouge2"] == pytest.approx(2 * (1 / 4) * (1 / 5) / (1 / 4 + 1 / 5))
    assert scores["rougeL"] == scores["rougeLsum"] == scores["rouge1"]


def test_precision_and_recall():
    best = best_rouge("red fox", ["red fox ran off"])
    assert (best["rouge1"].precision, best["rouge1"].recall) == (1.0, 0.5)


def test_repeats_are_clipped_and_case_and_punctuation_ignored():
    assert rouge_scores("go go go go", ["Go, now!"])["rouge1"] == pytest.approx(2 * 0.25 * 0.5 / 0.75)


def test_stemming_is_an_option():
    prediction, references = "they were running races", ["they run a race"]
    assert rouge_scores(prediction, references)["rouge1"] == pytest.approx(0.25)
    assert rouge_scores(prediction, references, use_stemmer=True)["rouge1"] == pytest.approx(0.75)


def test_each_key_takes_its_own_best_reference():
    # The first reference has the words, the second the order.
    references = ["three two one", "one two nine ten eleven"]
    scores = rouge_scores("one two three", references)
    assert scores["rouge1"] == 1.0
    assert scores["rouge2"] == pytest.approx(rouge_scores("one two three", references[1:])["rouge2"])
    assert scores["rouge2"] > rouge_scores("one two three", references[:1])["rouge2"] == 0.0


@pytest.mark.parametrize("text", ["会议讨论了预算", "встреча", "...", ""])
def test_text_without_ascii_letters_scores_zero_even_against_itself(text):
    assert set(rouge_scores(text, [text]).values()) == {0.0}


def test_rouge_l_sum_works_by_sentence_and_rouge_l_over_the_whole():
    prediction, reference = "Costs rose again. Nobody left early.", "Nobody left early. Costs rose again."
    whole = rouge_scores(prediction, [reference])
    split = rouge_scores(prediction, [reference], split=True)
    lines = rouge_scores(prediction.replace(". ", ".\n"), [reference.replace(". ", ".\n")])
    assert whole["rougeL"] == whole["rougeLsum"] == pytest.approx(0.5)
    assert split["rougeLsum"] == lines["rougeLsum"] == 1.0
    assert {split[key] - whole[key] for key in ("rouge1", "rouge2", "rougeL")} == {0.0}


def test_no_reference_is_an_error():
    with pytest.raises(UserError, match="no reference"):
        rouge_scores("red", [])


def mean_scores(each: list[dict]) -> dict[str, float]:
    return {key: 100 * float(np.mean([scores[key] for scores in each])) for key in ("rouge1", "rouge2", "rougeL")}


def record(number: int, prediction: str, *references: str) -> dict:
    return {
        "task": "sum",
        "id": str(number),
        "mode": "model",
        "prediction": prediction,
        "references": list(references),
        "meta": {},
    }


def test_geometric_mean_is_of_the_means():
    examples = [("one two three", "one two three"), ("one two three", "three nine two ten one")]
    each = [rouge_scores(prediction, [reference]) for prediction, reference in examples]
    means = mean_scores(each)
    expected = geometric_mean(means)
    assert expected == pytest.approx(np.prod(list(means.values())) ** (1 / 3))
    mean_of_geometric_means = np.mean([100 * (s["rouge1"] * s["rouge2"] * s["rougeL"]) ** (1 / 3) for s in each])
    # The second example has no common bigram, so its own geometric mean is 0.
    assert mean_of_geometric_means == pytest.approx(50) and expected > 55
    metric = score_predictions([record(i, p, r) for i, (p, r) in enumerate(examples)], ["rouge"])["overall"]["scores"]
    assert metric["rouge.geometric_mean"]["value"] == pytest.approx(expected)
    assert metric["rouge.geometric_mean"]["n"] == 2


def test_interval_of_the_geometric_mean_recomputes_the_means():
    predictions = [record(i, "one two three", "one two three" if i % 2 else "three nine two") for i in range(40)]
    score = score_predictions(predictions, ["rouge"])["overall"]["scores"]["rouge.geometric_mean"]
    each = [rouge_scores(p["prediction"], p["references"]) for p in predictions]
    rng, resamples = np.random.default_rng(5), []
    for _ in range(2000):
        drawn = [each[i] for i in rng.integers(0, 40, 40)]
        resamples.append(geometric_mean(mean_scores(drawn)))
    low, high = np.percentile(resamples, [2.5, 97.5])
    assert score["low"] == pytest.approx(low, abs=2) and score["high"] == pytest.approx(high, abs=2)
    assert score["low"] < score["value"] < score["high"]


@pytest.mark.parametrize(
    "text, sentences",
    [
        ('It rained. We left! Why? "So." They said so.', ["It rained.", "We left!", "Why?", '"So."', "They said so."]),
        (
            "Dr. Lee and J. Smith met. Costs were 3.14 million.",
            ["Dr. Lee and J. Smith met.", "Costs were 3.14 million."],
        ),
        ("first line\n\nsecond line", ["first line", "second line"]),
        ("ends in lower case. then goes on", ["ends in lower case. then goes on"]),
        ("  ", []),
    ],
)
def test_split_sentences(text, sentences):
    assert split_sentences(text) == sentences
    assert " ".join(sentences).split() == text.split()


def test_command_line(tmp_path, monkeypatch, capsys):
    rows = [record(0, "one two three", "one two three"), record(1, "one", "nine")]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--predictions", str(tmp_path / "p.jsonl"), "--metrics", "rouge,rouge_stemmed"]
    monkeypatch.setattr(sys, "argv", ["rouge_sum", *arguments])
    rouge_sum.main()
    printed = capsys.readouterr().out
    assert "rouge.geometric_mean" in printed and "rouge_stemmed.rouge2" in printed
    assert "50.0 [0.0, 100.0]" in printed


def test_the_registered_metrics_split_sentences_and_differ_by_the_stemmer():
    predictions = [record(0, "Costs rose again. Nobody left early.", "Nobody left early. Cost rises again.")]
    scores = score_predictions(predictions, ["rouge", "rouge_stemmed"])["overall"]["scores"]
    assert scores["rouge.rougeLsum"]["value"] > scores["rouge.rougeL"]["value"]
    assert scores["rouge_stemmed.rouge1"]["value"] > scores["rouge.rouge1"]["value"]
