"""What needles are hidden in: generated prose, noise, and a user's own text, in pieces that end where sentences do."""

import itertools
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from preprocess.demo_world import build_document
from preprocess.text_length import Measure
from utils.common_utils import UserError, read_text

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
"""The repeated noise of RULER (arXiv 2404.06654), after the passkey task (arXiv 2305.16300)."""

PROSE_SPLIT = "test"
"""The demo world's names that no training document has."""
_PROSE_LINES = 100
# White space after a sentence end, or at a line end, closes a piece and stays with it. A run of 400 characters without
# either is cut at white space, and anywhere where it has none.
_PIECE = re.compile(r".{1,400}?(?:[.!?…][\"'”’)\]]*\s+|[。！？]|\n\s*|\Z)|.{1,399}\s|.{1,400}", re.DOTALL)


class Haystack:
    """A text without end, in pieces with their lengths; it grows as far as is asked for.

    Args:
        blocks: blocks of pieces, without end; a piece includes the white space after it.
        joiner: the white space that goes after a needle among the pieces.
    """

    def __init__(self, blocks: Iterable[list[str]], joiner: str, measure: Measure):
        self.joiner = joiner
        self._blocks = iter(blocks)
        self._measure = measure
        self._pieces: list[str] = []
        self._costs: list[np.ndarray] = []
        self._total = 0.0

    def upto(self, length: float) -> tuple[list[str], np.ndarray]:
        """Return pieces of at least this length together, and the length of each."""
        while self._total < length:
            block = next(self._blocks)
            costs = self._measure.each(block)
            self._pieces += block
            self._costs.append(costs)
            self._total += float(costs.sum())
        # Many small arrays, joined once for the next caller.
        self._costs = [np.concatenate(self._costs)]
        # No more than is asked for, so that a context does not depend on those made before it.
        end = int(np.searchsorted(np.cumsum(self._costs[0]), length)) + 1
        return self._pieces[:end], self._costs[0][:end]


def prose_blocks(seed: str) -> Iterator[list[str]]:
    """Yield documents of the demo world, a sentence a line, of subjects that no training document has.

    The world has names for about 1,900 such sentences; a longer text comes back to them with other facts.
    """
    for number in itertools.count():
        document = build_document(random.Random(f"{seed}:prose:{number}"), PROSE_SPLIT, _PROSE_LINES)
        yield [f"{sentence.text}\n" for sentence in document.sentences]


def noise_blocks() -> Iterator[list[str]]:
    """Yield the noise again and again, a sentence a piece and a line each time."""
    return itertools.repeat(split_pieces(NOISE + "\n") * 20)


def text_blocks(text: str) -> Iterator[list[str]]:
    """Yield a text in pieces, again and again."""
    pieces = split_pieces(text)
    if not pieces[-1][-1].isspace():
        pieces[-1] += "\n"
    return itertools.repeat(pieces)


def split_pieces(text: str) -> list[str]:
    """Cut a text after sentence ends and line ends; the pieces joined are the text.

    A sentence ends at . ! ? or … with closing quotes or brackets before white space, or at a CJK full stop;
    abbreviations are not known. White space aside, no piece is longer than 400 characters.
    """
    return [piece for piece in _PIECE.findall(text) if piece]


def read_texts(paths: Iterable[Path], option: str) -> str:
    """Read text files, or all `.txt` and `.md` files of folders in the order of their names, joined by an empty line.

    Raises:
        UserError: a path is missing or not UTF-8, a folder has no such file, or there is no text at all.
    """
    texts = []
    for path in paths:
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix in {".txt", ".md"} and file.is_file())
            if not files:
                raise UserError(f"{option}: the folder {path} holds no .txt or .md file")
        texts += [read_text(file).strip() for file in files]
    text = "\n\n".join(text for text in texts if text)
    if not text:
        raise UserError(f"{option}: {', '.join(map(str, paths))}: no text there")
    return text
