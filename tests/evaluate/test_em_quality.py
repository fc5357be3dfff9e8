"""Exact match, and reading the choice out of a free-form answer."""

import sys

import pytest

from evaluate import em_quality
from evaluate.em_quality import (
    exact_match,
    gold_index,
    multiple_choice_accuracy,
    parse_choice,
    sat_score,
    substring_exact_match,
)
from evaluate.scoring import score_predictions
from utils.common_utils import UserError

OPTIONS = ["The old mill", "New York", "New York City", "He was afraid"]


def test_exact_match_of_bare_letters_is_a_trap():
    # "A" is an article: it normalises to nothing, and so does an empty answer.
    assert exact_match("", ["A"]) == exact_match("The", ["A"]) == 1.0
    assert exact_match("B", ["A"]) == exact_match("A", ["B"]) == 0.0
    assert multiple_choice_accuracy("", OPTIONS, "A") == multiple_choice_accuracy("The", OPTIONS, "A") == 0.0
    assert multiple_choice_accuracy("A", OPTIONS, "A") == 1.0


def test_exact_match_takes_the_best_reference():
    assert exact_match("the Thames.", ["Severn", "Thames"]) == 1.0
    assert exact_match("the Thames river", ["Severn", "Thames"]) == 0.0


def test_substring_match_is_of_characters():
    assert substring_exact_match("a pineapple", ["apple"]) == 1.0
    assert substring_exact_match("pine", ["apple"]) == 0.0
    assert substring_exact_match("pine", ["apple", "the"]) == 1.0


@pytest.mark.parametrize(
    "prediction, letter",
    [
        ("B", "B"),
        (" (b) ", "B"),
        ("**C**", "C"),
        ("A.", "A"),
        ("D\nbecause he ran", "D"),
        ("Answer: C", "C"),
        ("(B) New York", "B"),
        ("B. New York", "B"),
        ("**B)** New York", "B"),
        ("The answer is (C).", "C"),
        ("The correct answer is C, since", "C"),
        ("I would choose option D here", "D"),
        ("the old mill", "A"),
        ("New York.", "B"),
        ("It was New York City, I think", "C"),
        ("He was afraid of the dark", "D"),
        ("This points to (A) in my view", "A"),
        # Letters beyond the options, articles, initials and words are not choices.
        ("E", None),
        ("A man came", None),
        ("The answer is A dog", None),
        ("D.H. Lawrence", None),
        ("C. S. Lewis wrote the book.", None),
        ("**C. S. Lewis** wrote the book.", None),
        ("C) S. Lewis wrote the book.", "C"),
        ("C. U.S. citizens wrote the book.", "C"),
        ("Cold", None),
        ("", None),
        ("I do not know", None),
        # Two choices are no choice.
        ("either (A) or (B)", None),
        ("the old mill in New York", None),
    ],
)
def test_parse_choice(prediction, letter):
    expected = None if letter is None else "ABCD".index(letter)
    assert parse_choice(prediction, OPTIONS) == expected


def test_option_texts_that_look_like_letters():
    options = ["D. H. Lawrence", "The", "...", "Joyce"]
    assert parse_choice("D. H. Lawrence", options) == 0
    assert parse_choice("The", options) == 1
    assert parse_choice("...", options) == 2


def test_gold_is_a_letter_or_an_option_text():
    assert gold_index("C", OPTIONS) == gold_index("(C)", OPTIONS) == gold_index("new york city", OPTIONS) == 2
    with pytest.raises(UserError, match="'Paris' is neither"):
        gold_index("Paris", OPTIONS)


def test_sat_score_of_guessing_is_zero():
    scores = [sat_score(letter, OPTIONS, "B") for letter in "ABCD"]
    assert scores == pytest.approx([-1 / 3, 1, -1 / 3, -1 / 3]) and sum(scores) == pytest.approx(0)
    assert sat_score("no idea", OPTIONS, "B") == 0.0
    assert sat_score("A", ["x", "y"], "B") == -1.0


def record(number: int, prediction: str, gold: str, difficult: int, **meta) -> dict:
    meta = {"options": OPTIONS, "gold": gold, "difficult": difficult, **meta}
    return {
        "task": "quality",
        "id": str(number),
        "mode": "model",
        "prediction": prediction,
        "references": [],
        "meta": meta,
    }


def test_accuracy_metric_has_hard_subset_and_abstentions():
    predictions = [record(0, "A", "A", 0), record(1, "B", "A", 1), record(2, "C", "C", 1), record(3, "?", "D", 1)]
    scores = score_predictions(predictions, ["accuracy"])["overall"]["scores"]
    assert scores["accuracy"]["value"] == 50.0 and scores["accuracy"]["n"] == 4
    assert scores["accuracy.hard"]["value"] == pytest.approx(100 / 3) and scores["accuracy.hard"]["n"] == 3
    assert scores["accuracy.sat_score"]["value"] == pytest.approx(100 * (2 - 1 / 3) / 4)
    assert scores["accuracy.no_choice"]["value"] == 25.0


def test_accuracy_takes_gold_from_the_references_and_skips_withheld_labels():
    with_reference, withheld = record(0, "B", "A", 0), record(1, "B", "A", 0)
    del with_reference["meta"]["gold"], withheld["meta"]["gold"]
    with_reference["references"] = ["New York"]
    scores = score_predictions([with_reference, withheld], ["accuracy"])["overall"]
    assert scores["n"] == 2 and scores["scores"]["accuracy"]["n"] == 1
    assert scores["scores"]["accuracy"]["value"] == 100.0
    # No example is hard: no figure, and no division by zero.
    assert scores["scores"]["accuracy.hard"] == {"value": None, "low": None, "high": None, "n": 0}


def test_accuracy_without_options_names_the_example():
    with pytest.raises(UserError, match="'quality', id '7'.*meta.options"):
        score_predictions([record(7, "B", "A", 0, options=None)], ["accuracy"])


def test_command_line_needs_predictions_of_the_task(tmp_path, monkeypatch):
    (tmp_path / "p.jsonl").write_text("")
    monkeypatch.setattr(sys, "argv", ["em_quality", "--predictions", str(tmp_path / "p.jsonl")])
    with pytest.raises(UserError, match="holds no prediction"):
        em_quality.main()
