"""Hide needles in haystacks of given lengths at given depths: JSONL for the chunking step.

    python preprocess/generate_needle.py --output data/needle.jsonl --lengths 1k,4k,16k --tokenizer MODEL

The file is byte-identical for the same options. `docs/needle_and_ruler.md` describes the styles, the fillers and where
a needle goes.
"""

import argparse
import json
import os
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from tqdm import tqdm

from preprocess.haystacks import Haystack, noise_blocks, prose_blocks, read_texts, text_blocks
from preprocess.needles import DemoNeedles, NeedleSet, NumberNeedles, SanFranciscoNeedle
from preprocess.random_keys import BUILT_IN_WORDS, read_word_lists
from preprocess.text_length import (
    CharacterCount,
    ChunkCount,
    DoesNotFit,
    Measure,
    TokenCount,
    fit_largest,
    no_repeats,
    parse_length,
)
from preprocess.writing import add_overwrite, check_new, writing
from utils.chunking import check_chunk_options
from utils.common_utils import UserError, atomic_write_lines, run_cli
from utils.pretrained import load_tokenizer

STYLES = (DemoNeedles.name, SanFranciscoNeedle.name, NumberNeedles.name)
FILLERS = ("prose", "noise", "needles", "text")
# A haystack is taken longer than the context: what mentions a needle's subject is left out of it.
_SPARE = 1.15


class Cell(NamedTuple):
    """One context to make."""

    length: int
    depth: float
    sample: int


@dataclass
class Tally:
    """What was made."""

    records: int = 0
    left_out: int = 0
    """Sentences of the haystacks that mention the subject of a needle."""
    shortfalls: list[float] = field(default_factory=list)
    """By how much each context is shorter than asked for, in per cent."""


class Hidden(NamedTuple):
    """A context with its needles, and the share of the haystack's length before each, in per cent."""

    context: str
    depths: tuple[float, ...]


@dataclass(frozen=True)
class Generator:
    """Makes the contexts of one style and one filler; equal cells give equal contexts."""

    style: DemoNeedles | SanFranciscoNeedle | NumberNeedles
    filler: str
    measure: Measure
    num_needles: int
    seed: int
    text: str
    """The user's text, for the filler `text`."""
    haystacks: dict[tuple, Haystack]
    """Those in use, by sample and topic: what several contexts share is made and measured once."""

    def records(self, cell: Cell) -> Iterator[dict]:
        """Yield the records of a context, one a question."""
        rng = random.Random(f"{self.seed}:needle:{self.style.name}:{cell.length}:{cell.depth:g}:{cell.sample}")
        needle_set = self.style.draw(rng, self.num_needles)
        haystack = self._open(cell.sample, needle_set.topic)
        pieces, costs, num_left_out = self._pieces(haystack, cell, needle_set)
        depths = needle_depths(cell.depth, self.num_needles)
        try:
            fit = fit_largest(
                lambda size: hide(needle_set, pieces[:size], costs[:size], haystack.joiner, depths),
                lambda hidden: self.measure(hidden.context),
                costs,
                cell.length,
                smallest=0,
            )
        except DoesNotFit as error:
            raise UserError(
                f"--lengths: {cell.length:,} {self.measure.unit} are fewer than the {error.length:,} of the needles "
                "alone; ask for longer contexts or fewer needles"
            ) from None
        for number, question in enumerate(needle_set.questions):
            yield {
                "id": f"needle-{self.style.name}-{self.filler}-{self.num_needles}-{cell.length}-{cell.depth:g}-"
                f"{cell.sample}-{number}",
                "task": "needle",
                "context": fit.built.context,
                "prompt": question.prompt,
                "answer": list(question.answers),
                "meta": {
                    "kind": self.style.name,
                    "filler": self.filler,
                    "length": cell.length,
                    "unit": self.measure.unit,
                    "measured_length": fit.length,
                    "depth": cell.depth,
                    "needle_depth": fit.built.depths[question.needle],
                    "num_needles": self.num_needles,
                    "needles": [needle.text for needle in needle_set.needles],
                    "left_out_sentences": num_left_out,
                },
            }

    def _pieces(self, haystack: Haystack, cell: Cell, needle_set: NeedleSet) -> tuple[list[str], np.ndarray, int]:
        """Return pieces that mention no needle's subject, longer than the cell together, with their costs.

        The third is the number of pieces that were left out of them.
        """
        subjects = {needle.subject for needle in needle_set.needles}
        wanted = cell.length * _SPARE + 100
        while True:
            pieces, costs = haystack.upto(wanted)
            kept = np.array([not any(subject in piece for subject in subjects) for piece in pieces])
            if costs[kept].sum() >= cell.length:
                return (
                    [piece for piece, keep in zip(pieces, kept, strict=True) if keep],
                    costs[kept],
                    int((~kept).sum()),
                )
            if not kept.any():
                raise UserError(f"--text: every sentence mentions {', '.join(subjects)}; use another --needle_style")
            wanted *= 2

    def _open(self, sample: int, topic: tuple[str, ...]) -> Haystack:
        seed = f"{self.seed}:{sample}"
        key = (sample, topic) if self.filler == "needles" else (sample,) if self.filler == "prose" else ()
        if key not in self.haystacks:
            blocks, joiner = {
                "prose": lambda: (prose_blocks(seed), "\n"),
                "noise": lambda: (noise_blocks(), " "),
                "needles": lambda: (self.style.distractors(seed, topic), "\n"),
                "text": lambda: (text_blocks(self.text), " "),
            }[self.filler]()
            self.haystacks[key] = Haystack(blocks, joiner, self.measure)
        return self.haystacks[key]


def needle_depths(depth: float, num_needles: int) -> list[float]:
    """Return the depth of each needle: the first at `depth`, the others every (100 - depth) / num_needles per cent."""
    return [depth + number * (100 - depth) / num_needles for number in range(num_needles)]


def hide(
    needle_set: NeedleSet, pieces: Sequence[str], costs: np.ndarray, joiner: str, depths: Sequence[float]
) -> Hidden:
    """Put each needle after the last piece that ends at its depth, in per cent of the pieces' length, or before it."""
    ends = np.concatenate(([0.0], np.cumsum(costs)))
    parts, reached = [], []
    start = 0
    for needle, depth in zip(needle_set.needles, depths, strict=True):
        place = int(np.searchsorted(ends, ends[-1] * (depth / 100), side="right")) - 1
        parts += [*pieces[start:place], needle.text + joiner]
        reached.append(100 * float(ends[place] / ends[-1]) if ends[-1] else 0.0)
        start = place
    parts += pieces[start:]
    return Hidden("".join(parts).rstrip(), tuple(round(depth, 2) for depth in reached))


def parse_grid(text: str, option: str, least: float, most: float) -> list[float]:
    """Read numbers separated by commas, or `first:last:count` for evenly spaced whole numbers.

    Raises:
        UserError: something is no number, is outside [least, most], or is given twice.
    """
    try:
        if ":" in text:
            first, last, count = text.split(":")
            values = np.round(np.linspace(float(first), float(last), int(count))).tolist()
        else:
            values = [float(item) for item in text.split(",")]
    except ValueError:
        raise UserError(f"{option}={text!r}: write numbers as 0,50,100 or first:last:count as 0:100:11") from None
    for value in values:
        if not least <= value <= most:
            raise UserError(f"{option}={text!r}: {value:g} is not between {least:g} and {most:g}")
    if not values:
        raise UserError(f"{option}={text!r}: names no value")
    return no_repeats(values, option)


def parse_lengths(text: str) -> list[int]:
    """Read lengths separated by commas (`4096`, `128k`), or `first:last:count` for evenly spaced ones."""
    if ":" not in text:
        return no_repeats([parse_length(item, "--lengths") for item in text.split(",")], "--lengths")
    first, last, *count = text.split(":")
    ends = [parse_length(item, "--lengths") for item in (first, last)]
    return [int(value) for value in parse_grid(":".join([*map(str, ends), *count]), "--lengths", 1, float("inf"))]


def make_measure(args: argparse.Namespace) -> Measure:
    """Return the measure of `--unit`."""
    if args.unit == "tokens":
        if args.tokenizer is None:
            raise UserError("--unit tokens: name the tokenizer that counts with --tokenizer, or choose another --unit")
        return TokenCount(load_tokenizer(args.tokenizer, "--tokenizer"))
    if args.tokenizer is not None:
        raise UserError(f"--tokenizer={args.tokenizer!r}: --unit {args.unit} counts no tokens; leave one out")
    if args.unit == "chunks":
        check_chunk_options(args.chunk_size)
        return ChunkCount(args.chunk_size)
    return CharacterCount()


def make_generator(args: argparse.Namespace) -> Generator:
    """Check the options together and return what makes the contexts."""
    if (args.filler == "text") != bool(args.text):
        raise UserError("--filler text goes with --text FILES: give both or neither")
    for option in ("num_needles", "samples"):
        if getattr(args, option) < 1:
            raise UserError(f"--{option}={getattr(args, option)}: it must be at least 1")
    words = read_word_lists(args.words) if args.words else BUILT_IN_WORDS
    styles = {style.name: style for style in (DemoNeedles(), SanFranciscoNeedle(), NumberNeedles(words))}
    return Generator(
        style=styles[args.needle_style],
        filler=args.filler,
        measure=make_measure(args),
        num_needles=args.num_needles,
        seed=args.seed,
        text=read_texts(args.text, "--text") if args.text else "",
        haystacks={},
    )


def generate(generator: Generator, cells: Sequence[Cell], tally: Tally) -> Iterator[str]:
    """Yield the lines of the file and count them."""
    for cell in tqdm(cells, desc="contexts", disable=None):
        records = list(generator.records(cell))
        meta = records[0]["meta"]
        tally.records += len(records)
        tally.left_out += meta["left_out_sentences"]
        tally.shortfalls.append(100 * (1 - meta["measured_length"] / cell.length))
        yield from (json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="JSONL", help="file to write")
    add("--lengths", required=True, help="of the contexts: 1k,4k,16k (k = 1,024) or first:last:count")
    add("--unit", choices=("tokens", "characters", "chunks"), default="tokens", help="of --lengths")
    add("--tokenizer", help="hub id, folder or package: reference; counts tokens")
    add("--chunk_size", type=int, default=512, help="characters a chunk holds at most, for --unit chunks")
    add("--depths", default="0:100:11", help="of the first needle, in per cent: 0,50,100 or first:last:count")
    add("--samples", type=int, default=1, help="contexts for each length and depth")
    add("--needle_style", choices=STYLES, default="demo", help="what the needles say")
    add("--num_needles", type=int, default=1, help="needles in a context")
    add("--filler", choices=FILLERS, default="prose", help="what they are hidden in")
    add("--text", type=Path, nargs="+", default=[], metavar="PATH", help="text files or folders, for --filler text")
    add("--words", metavar="FOLDER", help="word lists for the style numbers (default: built-in ones)")
    add("--seed", type=int, default=0, help="another seed gives other needles and other prose")
    add_overwrite(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    lengths, depths = parse_lengths(args.lengths), parse_grid(args.depths, "--depths", 0, 100)
    generator = make_generator(args)
    cells = [Cell(*cell) for cell in ((n, d, s) for n in lengths for s in range(args.samples) for d in depths)]
    tally = Tally()
    check_new([args.output], args.overwrite)
    with writing(args.output, "--output"):
        atomic_write_lines(args.output, generate(generator, cells, tally))
    print(
        f"{args.output}: {tally.records} records, {len(cells)} contexts ({len(lengths)} lengths x {len(depths)} depths "
        f"x {args.samples}), shorter than asked for by {np.mean(tally.shortfalls):.2f} % on average, "
        f"{max(tally.shortfalls):.2f} % at most\n"
        f"  left out of the haystacks: {tally.left_out:,} sentences that mention the subject of a needle"
    )


if __name__ == "__main__":
    run_cli(main)
