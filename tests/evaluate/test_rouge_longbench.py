"""The package `rouge`'s scores, as LongBench v1 uses them."""

import pytest

from evaluate.rouge_longbench import longbench_rouge_l, rouge_package_scores
from evaluate.rouge_sum import rouge_scores
from utils.common_utils import UserError


def f(prediction: str, reference: str, key: str = "rouge-l") -> float:
    return rouge_package_scores(prediction, reference)[key]["f"]


def test_a_perfect_summary_scores_just_below_one():
    scores = rouge_package_scores("red fox", "red fox")
    assert scores["rouge-l"]["r"] == scores["rouge-l"]["p"] == 1.0
    assert scores["rouge-l"]["f"] == pytest.approx(2 / (2 + 1e-8), abs=1e-12)


def test_repeats_do_not_count():
    assert f("go go go stop", "go stop", "rouge-1") == pytest.approx(1)
    assert rouge_scores("go go go stop", ["go stop"])["rouge1"] < 0.7
    # Pairs of words are counted once as well: {go go, go stop} against {go stop}.
    assert rouge_package_scores("go go go stop", "go stop")["rouge-2"] == pytest.approx(
        {"p": 0.5, "r": 1.0, "f": 2 / 3}, abs=1e-7
    )


def test_case_and_punctuation_count():
    assert f("Red fox", "red fox") == pytest.approx(0.5)
    assert f("red fox!", "red fox") == pytest.approx(0.5)
    # A full stop ends a sentence and is no part of a word, in numbers too.
    assert f("red fox.", "red fox") == pytest.approx(1)
    assert rouge_package_scores("3.14", "3 14")["rouge-1"]["f"] == pytest.approx(1)


def test_white_space_after_the_last_stop_is_an_empty_word():
    # "a b. " has the words a, b and the empty one.
    assert rouge_package_scores("a b. ", "a b")["rouge-1"]["p"] == pytest.approx(2 / 3)


def test_rouge_l_is_a_union_over_sentences():
    # In one sentence the order matters; between sentences it does not.
    assert f("c d a b", "a b c d") == pytest.approx(0.5)
    assert f("c d. a b", "a b. c d") == pytest.approx(1)


def test_ties_of_subsequences_are_broken_as_in_the_package():
    # Of "a b" and "b a" the package takes b, the last word of the reference; the second sentence shows which it was.
    assert f("b a. a", "a b") == pytest.approx(1)
    assert f("b a. b", "a b") == pytest.approx(0.5)


def test_empty_texts_score_zero():
    for pair in (("", "a"), ("a", ""), ("", ""), ("...", "a")):
        assert {value for part in rouge_package_scores(*pair).values() for value in part.values()} == {0.0}


def test_long_texts_without_stops_are_computed():
    words = [f"w{number}" for number in range(700)]
    assert f(" ".join(words), " ".join(words[350:] + words[:350])) == pytest.approx(0.5)


def test_the_best_reference_counts():
    assert longbench_rouge_l("red fox", ["blue", "red dog"]) == pytest.approx(0.5)
    with pytest.raises(UserError, match="no reference"):
        longbench_rouge_l("red", [])
