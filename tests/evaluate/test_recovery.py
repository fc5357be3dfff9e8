"""Kinds of words and tokens, and the averages over them."""

import pytest

from evaluate.recovery import kinds_of_tokens, summarise_recovery, word_spans


def kinds(text: str) -> dict[str, str]:
    return {text[start:end]: kind for start, end, kind in word_spans(text)}


def test_names_numbers_and_other_words():
    assert kinds("Based in Geneva, Corner Delivery has 110 people.") == {
        "Based": "other word",
        "in": "other word",
        "Geneva": "name",
        "Corner": "name",
        "Delivery": "name",
        "has": "other word",
        "110": "number",
        "people": "other word",
    }
    assert kinds("Ivan Harper sang. Then he left on 3.5.")["Ivan"] == "name"
    assert kinds("Ivan Harper sang. Then he left on 3.5.")["Then"] == "other word"
    assert kinds("Ivan Harper sang. Then he left on 3.5.")["3.5"] == "number"
    assert kinds("Rome is old; I saw Rome.")["Rome"] == "name"


def test_a_token_is_of_the_word_it_has_a_part_in():
    text = "in Rome: 12"
    spans = [(0, 2), (2, 5), (5, 7), (7, 8), (8, 10), (10, 11), (11, 11)]
    expected = ["other word", "name", "name", "punctuation", "number", "number", "end"]
    assert kinds_of_tokens(text, spans) == expected


def test_averages_by_kind_and_place():
    chunk = {
        "text": "in Rome 12",
        "token_spans": [(0, 2), (2, 5), (5, 7), (7, 10), (10, 10)],
        "losses": [1.0, 2.0, 4.0, 0.5, 0.0],
        "correct": [True, True, False, True, True],
        "losses_shuffled": [2.0, 5.0, 5.0, 3.0, 0.0],
        "correct_shuffled": [True, False, False, False, True],
    }
    figures = summarise_recovery([chunk, chunk])
    assert figures["num_chunks"] == 2
    by_kind = {row["kind"]: row for row in figures["by_kind"]}
    assert list(by_kind) == ["name", "number", "other word", "end", "all"]
    assert by_kind["name"] == {
        "kind": "name",
        "n": 4,
        "accuracy": 0.5,
        "accuracy_shuffled": 0.0,
        "loss": 3.0,
        "loss_shuffled": 5.0,
    }
    assert by_kind["all"]["n"] == 10
    assert by_kind["all"]["accuracy"] == pytest.approx(0.8)
    places = [(row["kind"], row["position"], row["n"], row["accuracy"]) for row in figures["by_position"]]
    assert places == [
        ("name", 0.25, 2, 1.0),
        ("name", 0.55, 2, 0.0),
        ("number", 0.75, 2, 1.0),
        ("other word", 0.05, 2, 1.0),
    ]
