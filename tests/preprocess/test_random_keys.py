"""Word lists, random keys, and RULER's needle and question."""

import random
import re
import sys

import pytest

from preprocess.random_keys import (
    BUILT_IN_WORDS,
    magic_sentence,
    random_number,
    random_uuid,
    read_word_lists,
    special_magic,
)
from utils.common_utils import UserError


def write_lists(folder, adjectives="big\nsmall\n", nouns="ox\ngas mask\n ant \nox\n", verbs="go\n"):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("adjective", adjectives), ("noun", nouns), ("verb", verbs)):
        (folder / f"{name}list.txt").write_text(text)
    return folder


def test_built_in_words_are_single_and_differ():
    for words in (BUILT_IN_WORDS.adjectives, BUILT_IN_WORDS.nouns, BUILT_IN_WORDS.verbs):
        assert len(words) == len(set(words)) > 200
        assert all(re.fullmatch("[a-z]+", word) for word in words)
    assert re.fullmatch("[a-z]+-[a-z]+", BUILT_IN_WORDS.draw_pair(random.Random(0)))


def test_samples_differ_in_every_word_and_a_short_one_begins_a_long_one():
    num_singles = len(BUILT_IN_WORDS.words)
    long = BUILT_IN_WORDS.sample(random.Random(3), num_singles + 500)
    assert len(set(long)) == num_singles + 500
    assert all("-" not in word for word in long[:num_singles]) and all("-" in word for word in long[num_singles:])
    for count in (0, 7, num_singles + 20):
        assert BUILT_IN_WORDS.sample(random.Random(3), count) == long[:count]


def test_lists_of_the_user(tmp_path, monkeypatch):
    words = read_word_lists(str(write_lists(tmp_path / "lists")))
    assert words.nouns == ("ox", "ant") and words.words == ("ant", "big", "go", "ox", "small")
    assert words.num_words == 5 + 4
    assert set(words.sample(random.Random(0), 9)[5:]) == {"big-ox", "big-ant", "small-ox", "small-ant"}
    write_lists(tmp_path / "wordy" / "assets")
    (tmp_path / "wordy" / "__init__.py").write_text("")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert read_word_lists("package:wordy/assets") == words


def test_lists_that_are_none(tmp_path):
    with pytest.raises(UserError, match="no such folder; it holds adjectivelist.txt"):
        read_word_lists(str(tmp_path / "none"))
    with pytest.raises(UserError, match="verblist.txt: holds no word"):
        read_word_lists(str(write_lists(tmp_path / "lists", verbs="\n")))
    with pytest.raises(UserError, match="'no_such_package' is not installed"):
        read_word_lists("package:no_such_package/assets")


def test_numbers_and_identifiers():
    rng = random.Random(0)
    assert all(re.fullmatch("[1-9][0-9]{6}", random_number(rng)) for _ in range(50))
    assert re.fullmatch("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", random_uuid(rng))


def test_the_wording_of_ruler():
    assert magic_sentence("numbers", "big-ox", "1234567") == "One of the special magic numbers for big-ox is: 1234567."
    assert special_magic("uuids", ["a"], 1) == "What is the special magic uuid for a mentioned in the provided text?"
    expected = "What are all the special magic numbers for a, b, and c mentioned in the provided text?"
    assert special_magic("numbers", ["a", "b", "c"], 3) == expected
