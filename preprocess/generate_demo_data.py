"""Write the demo data: short invented documents and questions that only they answer, as JSONL for the chunking step.

    python preprocess/generate_demo_data.py --output_dir data/demo

The files are byte-identical for the same options. `docs/demo_data.md` describes the data.
"""

import argparse
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from preprocess.demo_questions import KINDS, LETTERS, sample_questions
from preprocess.demo_world import SPLITS, build_document, max_sentences
from preprocess.writing import add_overwrite, check_new, writing
from utils.common_utils import UserError, atomic_write_text, closest, run_cli

DEFAULT_LENGTHS = {
    "train": "1:1500:3,2:2500:6,4:2500:12,8:2500:16,16:600:24,32:200:32",
    "validation": "1:30:3,4:30:6,8:20:8",
    "test": "1:40:2,2:30:3,4:24:4,8:12:8,16:6:12,32:4:16,64:2:24,128:1:32,256:1:32",
}
DEFAULT_KINDS = "one_fact:10,which_of_several:2,two_facts:2,multiple_choice:0.6,summary:0.2"


class LengthSpec(NamedTuple):
    """So many documents of so many sentences each, with at most so many questions a document."""

    num_sentences: int
    num_documents: int
    max_questions: int


def parse_lengths(text: str, split: str, default_questions: int) -> list[LengthSpec]:
    """Read `sentences:documents` or `sentences:documents:questions`, comma-separated.

    Raises:
        UserError: an item is not two or three whole numbers of at least 1, a document is too long, or a length is
            given twice.
    """
    option = f"--{split}_lengths"
    specs: dict[int, LengthSpec] = {}
    for item in text.split(","):
        parts = item.strip().split(":")
        if len(parts) not in (2, 3) or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
            raise UserError(
                f"{option}: {item.strip()!r} is not sentences:documents or sentences:documents:questions, "
                f"each a whole number of at least 1; write for example {option} 1:100,8:20:5"
            )
        spec = LengthSpec(int(parts[0]), int(parts[1]), int(parts[2]) if len(parts) == 3 else default_questions)
        if spec.num_sentences > max_sentences(split):
            raise UserError(
                f"{option}: {item.strip()!r} asks for {spec.num_sentences} sentences a document; the {split} "
                f"split has names for {max_sentences(split)}"
            )
        if spec.num_sentences in specs:
            raise UserError(f"{option}: the length {spec.num_sentences} is given twice; add its documents up")
        specs[spec.num_sentences] = spec
    return list(specs.values())


def parse_kinds(text: str) -> dict[str, float]:
    """Read the weights of the kinds of question, `kind:weight,...`; kinds that are not named are left out.

    Raises:
        UserError: a kind is unknown or given twice, a weight is no number of at least 0, or none is above 0.
    """
    weights: dict[str, float] = {}
    for item in text.split(","):
        kind, _, weight = item.strip().partition(":")
        if kind not in KINDS:
            raise UserError(f"--kinds: unknown kind {kind!r}; known are {', '.join(KINDS)}.{closest(kind, KINDS)}")
        if kind in weights:
            raise UserError(f"--kinds: {kind} is given twice")
        try:
            weights[kind] = float(weight)
        except ValueError:
            raise UserError(f"--kinds: {item.strip()!r} has no number as its weight; write {kind}:1") from None
        if not 0 <= weights[kind] < float("inf"):
            raise UserError(f"--kinds: the weight of {kind} is {weight}; it must be a number of at least 0")
    if not any(weights.values()):
        raise UserError(f"--kinds: {text!r} leaves no kind with a weight above 0")
    return weights


def generate_records(
    split: str, specs: Iterable[LengthSpec], kind_weights: dict[str, float], seed: int
) -> Iterator[dict]:
    """Yield the records of a split, one a question, document after document.

    Each document has a random state of its own, drawn from the seed, the split, its length and its number: other
    lengths or more documents leave it unchanged.
    """
    for spec in specs:
        for number in range(spec.num_documents):
            name = f"{split}-{spec.num_sentences}-{number:05d}"
            rng = random.Random(f"{seed}:{name}")
            document = build_document(rng, split, spec.num_sentences)
            context = document.context
            questions = sample_questions(rng, document, kind_weights, spec.max_questions)
            for index, question in enumerate(questions):
                question["meta"]["document"] = name
                yield {"id": f"{name}:{index}", "task": "demo", "context": context, **question}


def closed_book_baseline(train: Iterable[dict], test: Iterable[dict]) -> dict[str, tuple[float, int]]:
    """Return how often, in per cent, the best answer to a question without its document is right, by kind.

    The guess is the most frequent training answer to questions of the same kind about the same attribute; for
    multiple_choice it is the option under the most frequent letter. The second figure is the number of test questions.
    """
    seen: dict[tuple[str, str], Counter] = defaultdict(Counter)
    for record in train:
        meta = record["meta"]
        seen[meta["kind"], meta["attribute"]][meta.get("gold", record["answer"])] += 1
    guesses = {key: answers.most_common(1)[0][0] for key, answers in seen.items()}
    right: dict[str, list[bool]] = defaultdict(list)
    for record in test:
        meta = record["meta"]
        guess = guesses.get((meta["kind"], meta["attribute"]))
        if guess is not None and "options" in meta:
            guess = meta["options"][LETTERS.index(guess)]
        right[meta["kind"]].append(guess == record["answer"])
    return {kind: (100 * sum(right[kind]) / len(right[kind]), len(right[kind])) for kind in KINDS if right[kind]}


def format_table(split: str, metas: list[dict]) -> str:
    """Return the numbers of documents and of questions by kind, one row a document length."""
    columns = ["documents", *KINDS, "questions"]
    line = "{:<14}" + "".join(f"  {{:>{len(column)}}}" for column in columns)
    rows = [line.format(split, *columns)]
    lengths = sorted({meta["num_sentences"] for meta in metas})
    for length in [*lengths, None]:
        chosen = [meta for meta in metas if length in (None, meta["num_sentences"])]
        counts = Counter(meta["kind"] for meta in chosen)
        documents = len({meta["document"] for meta in chosen})
        label = "total" if length is None else f"{length} sentence{'s' * (length > 1)}"
        rows.append(line.format(label, documents, *(counts[kind] for kind in KINDS), len(chosen)))
    return "\n".join(rows)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Write invented documents and questions about them as train, validation and test.jsonl.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the three files")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other documents")
    for split in SPLITS:
        parser.add_argument(
            f"--{split}_lengths",
            default=DEFAULT_LENGTHS[split],
            metavar="SPEC",
            help="number of sentences:number of documents[:most questions a document], comma-separated",
        )
    parser.add_argument(
        "--questions_per_document", type=int, default=4, help="most questions a document, where the lengths say nothing"
    )
    parser.add_argument(
        "--kinds", default=DEFAULT_KINDS, metavar="SPEC", help="kinds of question and their weights, comma-separated"
    )
    add_overwrite(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    if args.questions_per_document < 1:
        raise UserError(f"--questions_per_document={args.questions_per_document}: it must be at least 1")
    if args.output_dir.exists() and not args.output_dir.is_dir():
        raise UserError(f"--output_dir={args.output_dir}: this is a file; name a folder")
    kind_weights = parse_kinds(args.kinds)
    specs = {
        split: parse_lengths(getattr(args, f"{split}_lengths"), split, args.questions_per_document) for split in SPLITS
    }
    check_new([args.output_dir / f"{split}.jsonl" for split in SPLITS], args.overwrite)
    answered: dict[str, list[dict]] = {}
    for split in SPLITS:
        lines, answered[split] = [], []
        for record in generate_records(split, specs[split], kind_weights, args.seed):
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
            answered[split].append({"answer": record["answer"], "meta": record["meta"]})
        with writing(args.output_dir, "--output_dir"):
            atomic_write_text(args.output_dir / f"{split}.jsonl", "".join(lines))
        print(format_table(split, [record["meta"] for record in answered[split]]), end="\n\n")
    print(f"Written to {args.output_dir}. Exact match on test without the documents (the best guess from train):")
    for kind, (score, number) in closed_book_baseline(answered["train"], answered["test"]).items():
        print(f"  {kind:<16} {score:5.1f} %  of {number:,}")


if __name__ == "__main__":
    run_cli(main)
