"""The essay haystack of RULER: the first words of a long running text, with needles between its sentences."""

import itertools
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from preprocess.haystacks import prose_blocks
from preprocess.text_length import TokenCount

_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*$|[。！？]$")


class Essay:
    """A running text without end, in words with their token costs; it grows as far as is asked for.

    Args:
        blocks: makes blocks of words, without end.
    """

    def __init__(self, blocks: Callable[[], Iterator[list[str]]], measure: TokenCount):
        self._blocks = blocks()
        self._measure = measure
        self._words: list[str] = []
        self._ends: list[int] = []
        self._costs = np.empty(0)

    def costs(self, length: int) -> np.ndarray:
        """Return the costs of words that are longer than `length` tokens together."""
        parts, total = [self._costs], float(self._costs.sum())
        while total < 1.05 * length + 100:
            block = next(self._blocks)
            parts.append(self._measure.each([f" {word}" for word in block]))
            total += float(parts[-1].sum())
            offset = len(self._words)
            self._words += block
            self._ends += [offset + n for n, word in enumerate(block, start=1) if _SENTENCE_END.search(word)]
        self._costs = np.concatenate(parts)
        # No more than is needed, so that a draft does not depend on what was asked for before.
        return self._costs[: int(np.searchsorted(np.cumsum(self._costs), 1.05 * length + 100)) + 1]

    def with_needles(self, num_words: int, needles: Sequence[str], depths: Sequence[int]) -> str:
        """Return the first words with a needle at each depth, in per cent of the sentences, in ascending order.

        The last sentence is cut off where the words end.
        """
        ends = [0, *self._ends[: bisect_right(self._ends, num_words)]]
        if ends[-1] < num_words:
            ends.append(num_words)
        parts, start = [], 0
        for needle, depth in zip(needles, depths, strict=True):
            place = ends[int((len(ends) - 1) * depth / 100)]
            parts += [*self._words[start:place], needle]
            start = place
        return " ".join([*parts, *self._words[start:num_words]])


def prose_words(seed: int) -> Iterator[list[str]]:
    """Yield the words of generated prose."""
    return (" ".join(block).split() for block in prose_blocks(f"{seed}:essay"))


def text_words(text: str) -> Iterator[list[str]]:
    """Yield the words of a text, again and again."""
    return itertools.repeat(text.split())
