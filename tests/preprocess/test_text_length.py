"""Lengths of texts, and the largest haystack that stays within one, whatever the costs say."""

import numpy as np
import pytest

from preprocess.text_length import (
    CharacterCount,
    ChunkCount,
    DoesNotFit,
    TokenCount,
    fit_largest,
    no_repeats,
    parse_length,
)
from tests.conftest import decoder_tokenizer
from utils.common_utils import UserError


def test_tokens_are_those_of_the_tokenizer_without_special_tokens():
    tokenizer = decoder_tokenizer()
    text = "Ada lives in Rome since 1950. " * 50
    expected = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert TokenCount(tokenizer)(text) == expected > 100
    assert TokenCount(tokenizer).each(["Rome", "Ada lives", "Rome"]).tolist() == [
        len(tokenizer(each, add_special_tokens=False)["input_ids"]) for each in ("Rome", "Ada lives", "Rome")
    ]


def test_a_tokenizer_without_a_fast_backend_counts_the_same():
    fast = decoder_tokenizer()

    class Slow:
        def __call__(self, text, add_special_tokens, verbose):
            return fast(text, add_special_tokens=add_special_tokens)

    assert TokenCount(Slow())("Ada lives in Rome.") == TokenCount(fast)("Ada lives in Rome.")


def test_characters_and_chunks():
    assert CharacterCount()("één") == 3
    assert ChunkCount(10)("word " * 7) == 4
    assert CharacterCount().each(["ab", "c"]).tolist() == [2, 1]
    assert ChunkCount(10).each(["abcde"]).tolist() == [0.5]


@pytest.mark.parametrize("limit", [10, 14, 100, 1234, 9_999])
@pytest.mark.parametrize("scale", [0.1, 1.0, 7.0])
def test_the_largest_size_that_fits_is_found_however_wrong_the_costs(limit, scale):
    lengths = np.random.default_rng(0).integers(1, 12, 5000)
    totals = 10 + np.concatenate(([0], np.cumsum(lengths)))
    measured = []

    def measure(size: int) -> int:
        measured.append(size)
        return int(totals[size])

    fit = fit_largest(lambda size: size, measure, lengths * scale, limit, smallest=0)
    assert fit.length == totals[fit.size] <= limit
    # A unit less than what fits is allowed where costs are wrong, no more.
    assert fit.size >= np.searchsorted(totals, limit, side="right") - 2
    assert len(measured) <= 25


def test_good_costs_need_few_measurements():
    costs = np.full(100_000, 16.0)
    measured = []

    def measure(size: int) -> int:
        measured.append(size)
        return 16 * size + 40

    assert fit_largest(lambda size: size, measure, costs, 1_000_000, smallest=0).size == 62_497
    assert len(measured) <= 3


def test_it_ends_where_lengths_jump_or_never_grow():
    assert fit_largest(lambda size: size, lambda size: 5, np.ones(1000), 10, smallest=0).size == 1000
    jump = fit_largest(lambda size: size, lambda size: 5 if size < 700 else 999, np.ones(1000), 10, smallest=0)
    assert 0 < jump.size < 700
    assert fit_largest(lambda size: size, lambda size: 5, np.zeros(50), 10, smallest=50).size == 50


def test_the_smallest_that_does_not_fit_is_reported_with_its_length():
    with pytest.raises(DoesNotFit) as error:
        fit_largest(lambda size: size, lambda size: 100 + size, np.ones(10), 50, smallest=2)
    assert error.value.length == 102


@pytest.mark.parametrize(("text", "length"), [("4096", 4096), ("4k", 4096), (" 128K ", 131072), ("1m", 1048576)])
def test_lengths(text, length):
    assert parse_length(text, "--lengths") == length


@pytest.mark.parametrize("text", ["", "0", "k", "-4k", "4.5k", "4g", "²"])
def test_no_lengths(text):
    with pytest.raises(UserError, match="--lengths: .* is no length"):
        parse_length(text, "--lengths")


def test_values_given_twice_are_refused():
    assert no_repeats(range(3), "--depths") == [0, 1, 2]
    with pytest.raises(UserError, match="--depths: 5 is given 2 times"):
        no_repeats([5, 1, 5], "--depths")
