"""How long a text is, in tokens, characters or chunks, and the largest haystack that stays within a length."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from utils.chunking import chunk_spans
from utils.common_utils import UserError

Built = TypeVar("Built")

_SUFFIXES = {"k": 1 << 10, "m": 1 << 20}
# From here on a guess by the costs is no longer trusted: halving the range ends for certain.
_MAX_GUESSES = 8
# Costs are estimates: a further unit is tried where the room left is at least this share of its cost.
_LIKELY = 0.8


class Measure(Protocol):
    """The length of a text in one unit."""

    unit: str

    def __call__(self, text: str) -> int: ...

    def each(self, texts: Sequence[str]) -> np.ndarray:
        """Return what each text adds to a text that it is a piece of, about: [number of texts]."""


class TokenCount:
    """Length in tokens of a tokenizer, without special tokens."""

    unit = "tokens"

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer
        # Counting without offsets takes half the time; slow tokenizers have no backend.
        self._backend = getattr(tokenizer, "backend_tokenizer", None)

    def __call__(self, text: str) -> int:
        return int(self._count([text])[0])

    def each(self, texts: Sequence[str]) -> np.ndarray:
        distinct = list(dict.fromkeys(texts))
        counts = dict(zip(distinct, self._count(distinct), strict=True))
        return np.array([counts[text] for text in texts], dtype=np.float64)

    def _count(self, texts: list[str]) -> list[int]:
        if self._backend is not None:
            return [len(encoding) for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]
        return [len(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) for text in texts]


class CharacterCount:
    """Length in characters (Unicode code points)."""

    unit = "characters"

    def __call__(self, text: str) -> int:
        return len(text)

    def each(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([len(text) for text in texts], dtype=np.float64)


class ChunkCount:
    """Length in chunks of `chunk_size` characters, as the chunk store cuts a text (without overlap)."""

    unit = "chunks"

    def __init__(self, chunk_size: int):
        self.chunk_size = chunk_size

    def __call__(self, text: str) -> int:
        return len(chunk_spans(text, self.chunk_size))

    def each(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([len(text) / self.chunk_size for text in texts], dtype=np.float64)


class DoesNotFit(Exception):
    """Even the smallest haystack is longer than the limit; `length` tells how long."""

    def __init__(self, length: int):
        super().__init__(length)
        self.length = length


@dataclass(frozen=True)
class Fit(Generic[Built]):
    """The largest size that fits, what was built of it, and its length as measured."""

    size: int
    built: Built
    length: int


def fit_largest(
    build: Callable[[int], Built], measure: Callable[[Built], int], costs: np.ndarray, limit: int, smallest: int
) -> Fit[Built]:
    """Build with as many units of haystack as stay within `limit`.

    Every result is measured as a whole, so that it never exceeds the limit, however wrong the costs are; they only
    serve to guess the size, which takes two or three measurements where they are good. Less than what would still fit
    is possible where lengths grow by leaps.

    Args:
        build: size, in units of haystack -> whatever is to be measured; the same for the same size.
        costs: estimated length of each unit, [largest size].
        smallest: the least size to build; at most `len(costs)`.

    Raises:
        DoesNotFit: the smallest exceeds the limit.
    """
    cumulative = np.concatenate(([0.0], np.cumsum(costs)))
    built = build(smallest)
    best = Fit(smallest, built, measure(built))
    if best.length > limit:
        raise DoesNotFit(best.length)
    size, length, slope = best.size, best.length, 1.0
    too_large = len(costs) + 1
    guesses = 0
    while too_large - best.size > 1 and limit - best.length >= _LIKELY * costs[best.size] * slope:
        guess = int(np.searchsorted(cumulative, cumulative[size] + (limit - length) / slope, side="right")) - 1
        guess = min(max(guess, best.size + 1), too_large - 1)
        if guesses >= _MAX_GUESSES:
            guess = (best.size + too_large) // 2
        guesses += 1
        built = build(guess)
        measured = measure(built)
        if (rise := cumulative[guess] - cumulative[size]) and (measured - length) / rise > 0:
            slope = (measured - length) / rise
        size, length = guess, measured
        if length > limit:
            too_large = size
        else:
            best = Fit(size, built, length)
    return best


def parse_length(text: str, option: str) -> int:
    """Read a length such as `4096`, `128k` (k = 1,024) or `1m` (m = 1,048,576).

    Raises:
        UserError: it is no whole number of at least 1; `option` names the key in the message.
    """
    number, factor = text.strip().lower(), 1
    if number[-1:] in _SUFFIXES:
        number, factor = number[:-1], _SUFFIXES[number[-1]]
    if not (number.isascii() and number.isdigit() and int(number) > 0):
        raise UserError(f"{option}: {text.strip()!r} is no length; write a whole number, or 4k, 128k, 1m (k = 1,024)")
    return int(number) * factor


def no_repeats(values: Iterable, option: str) -> list:
    """Return the values as a list.

    Raises:
        UserError: one is given twice.
    """
    values = list(values)
    for value in values:
        if values.count(value) > 1:
            raise UserError(f"{option}: {value} is given {values.count(value)} times; once is enough")
    return values
