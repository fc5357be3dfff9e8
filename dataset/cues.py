"""Cues for cued restatement: a word or phrase that names one chunk among those of a window.

A cue is taken from its chunk verbatim, and no other chunk of the window holds it, whatever the case of its letters. The
kinds of cue, the first that a chunk has being used:

    telling     names (runs of capitalised words), words with digits, and the chunk's longest words, in equal parts
    phrases     two and three neighbouring words, where no word is the chunk's alone
    beginnings  as few of the first words as it takes

A chunk that has none of these holds nothing of its own. It is named only where the window has no better one to ask
about, by its first words, and counts as ambiguous.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_CUE_CHARACTERS = 48
"""A longer cue, as writing without spaces has them, is cut to this."""
MIN_WORD_CHARACTERS = 4
"""Shorter words are no telling cues, unless they hold a digit."""
NUM_LONGEST_WORDS = 4
"""So many of a chunk's own longest words are telling cues."""
NUM_FIRST_WORDS = 5
"""First words that name a chunk which has nothing of its own."""

_WORD = re.compile(r"\w+(?:['’.,:-]\w+)*")
_SPACED = re.compile(r"\S+")


@dataclass(frozen=True)
class Cue:
    """What names a chunk of a window."""

    chunk: int
    """The chunk's place in the window, from 0."""
    text: str
    is_unique: bool
    """Whether no other chunk of the window holds it."""


def choose_cues(chunks: Sequence[str], num_cues: int, seed: int) -> list[Cue]:
    """Choose chunks of a window to be restated and a cue for each: a pure function of its arguments.

    Chunks are taken in an order that the seed draws; those with a cue of their own come before all others.

    Args:
        chunks: texts of the window's chunks.
        num_cues: chunks to choose; all, where the window has fewer.
    """
    folded = [chunk.casefold() for chunk in chunks]
    order = sorted(range(len(chunks)), key=lambda chunk: _drawn(seed, "chunk", chunk))
    cues, ambiguous = [], []
    for chunk in order:
        if len(cues) == num_cues:
            break
        others = [text for other, text in enumerate(folded) if other != chunk]
        own = own_cues(chunks[chunk], others)
        if own:
            cues.append(Cue(chunk, own[_drawn(seed, "cue", chunk) % len(own)], is_unique=True))
        else:
            beginning = " ".join(chunks[chunk].split()[:NUM_FIRST_WORDS])
            ambiguous.append(Cue(chunk, beginning[:MAX_CUE_CHARACTERS], is_unique=False))
    return cues + ambiguous[: num_cues - len(cues)]


def own_cues(chunk: str, others: Sequence[str]) -> list[str]:
    """Return the cues of the best kind that a chunk has, in the order of the text; none, if it has none.

    Args:
        others: the window's other chunks, casefolded.
    """
    words = _only_here(_names_and_words(chunk), others)
    if words:
        plain = sorted((word for word in words if not _is_striking(word)), key=len, reverse=True)
        return [word for word in words if _is_striking(word) or word in plain[:NUM_LONGEST_WORDS]]
    for num_words in (2, 3):
        if phrases := _only_here(_phrases(_WORD, chunk, num_words), others):
            return phrases
    beginnings = (_phrases(_SPACED, chunk, count)[:1] for count in range(1, len(chunk.split()) + 1))
    return next((own for beginning in beginnings if (own := _only_here(beginning, others))), [])


def _names_and_words(chunk: str) -> list[str]:
    """Return runs of up to three capitalised words, words with digits, and words that are not short."""
    found: list[str] = []
    name_end = -1
    for word in _WORD.finditer(chunk):
        text = word.group()
        if text[0].isupper():
            goes_on = chunk[name_end : word.start()] == " " and found[-1].count(" ") < 2
            found = [*found[:-1], f"{found[-1]} {text}"] if goes_on else [*found, text]
            name_end = word.end()
        elif len(text) >= MIN_WORD_CHARACTERS or _has_digit(text):
            found.append(text)
    return found


def _phrases(pattern: re.Pattern, chunk: str, num_words: int) -> list[str]:
    """Return the runs of `num_words` words as they stand in the text; the whole text, where it has fewer words."""
    words = list(pattern.finditer(chunk))
    if not words:
        return []
    num_words = min(num_words, len(words))
    lasts = words[num_words - 1 :]
    return [chunk[first.start() : last.end()] for first, last in zip(words, lasts, strict=False)]


def _only_here(candidates: Sequence[str], others: Sequence[str]) -> list[str]:
    unique = dict.fromkeys(cue[:MAX_CUE_CHARACTERS] for cue in candidates)
    return [cue for cue in unique if not any(cue.casefold() in other for other in others)]


def _is_striking(cue: str) -> bool:
    return cue[0].isupper() or _has_digit(cue)


def _has_digit(text: str) -> bool:
    return any(character.isdigit() for character in text)


def _drawn(*key: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little")
