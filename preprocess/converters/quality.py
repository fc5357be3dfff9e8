"""QuALITY (github.com/nyu-mll/quality, v1.0.1): one record a question, with its options as a lettered list.

The files without HTML are taken where both kinds are there. The labels of the test split are withheld: its records have
no answer. `meta.difficult` marks the hard subset.
"""

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from preprocess.converters.html import html_to_text
from preprocess.converters.release import (
    LETTERS,
    Converter,
    Counts,
    Fields,
    Published,
    Split,
    add_input_dir,
    lettered,
)
from preprocess.converters.rows import describe
from utils.common_utils import UserError, read_jsonl

FILES = {"train": "train", "validation": "dev", "test": "test"}
"""Our splits, and the ends of the release's file names."""
PUBLISHED = {"train": 2523, "validation": 2086, "test": 2128}
SOURCE = "2,128 in the leaderboard's rules, 6,737 in all in the paper"

_VERSION = re.compile(r"QuALITY\.(v[0-9.]+?)(?:\.htmlstripped)?\.(?:train|dev|test)")


def add_options(parser: ArgumentParser) -> None:
    add_input_dir(parser, "folder with QuALITY.v1.0.1.htmlstripped.train, .dev and .test")
    parser.add_argument(
        "--answer",
        choices=("text", "letter"),
        default="text",
        help="what the answer is: the text of the right option, as in SCROLLS, or its letter (default: text)",
    )


def find_splits(args: Namespace) -> list[Split]:
    """Return the splits whose files are there.

    Raises:
        UserError: there is none, or there are several versions of the release.
    """
    folder = args.input_dir
    files = sorted(path for path in folder.glob("QuALITY.v*") if _VERSION.fullmatch(path.name))
    versions = sorted({_VERSION.fullmatch(path.name).group(1) for path in files})
    if len(versions) > 1:
        raise UserError(f"--input_dir={folder}: holds QuALITY {', '.join(versions)}; put one version in it")
    splits = []
    for split, name in FILES.items():
        ours = [path for path in files if path.name.endswith(f".{name}")]
        if ours:
            stripped = [path for path in ours if ".htmlstripped." in path.name]
            published = Published({"questions": PUBLISHED[split]}, SOURCE)
            splits.append(Split(split, (stripped or ours)[0], published))
    if not splits:
        raise UserError(
            f"--input_dir={folder}: no file such as QuALITY.v1.0.1.htmlstripped.train in it; unpack the release there"
        )
    return splits


def convert(split: Split, args: Namespace, counts: Counts) -> Iterator[dict]:
    path: Path = split.source
    articles = set()
    rows = tqdm(read_jsonl(path), desc=split.name, unit="question set", disable=None)
    for number, row in enumerate(rows, start=1):
        if "article" not in row or "questions" not in row:
            raise UserError(f"{path}, row {number}: holds {describe(row)}; QuALITY has article and questions")
        question_set = Fields(row, f"{path}, row {number}", "a line of QuALITY")
        article, context = question_set.text("article_id"), question_set.text("article")
        if ".htmlstripped." not in path.name:
            context = html_to_text(context)
        counts.read["articles"] += article not in articles
        articles.add(article)
        for index, question in enumerate(question_set.items("questions")):
            counts.read["questions"] += 1
            name = f"{question_set.text('set_unique_id')}_{index + 1}"
            yield _record(question, name, article, context, split.name, args.answer, counts)


def _record(
    question: Fields, name: str, article: str, context: str, split: str, answer_form: str, counts: Counts
) -> dict:
    options = [option.strip() for option in question.texts("options")]
    meta: dict = {"article": article, "options": options}
    answer: str | list = []
    if "gold_label" in question:
        gold = question.get("gold_label", int)
        if not 1 <= gold <= len(options):
            raise UserError(f"{question.place}: {question.key}.gold_label is {gold}, expected 1 to {len(options)}")
        meta |= {"gold": LETTERS[gold - 1], "difficult": question.get("difficult", int)}
        counts.read["hard questions"] += meta["difficult"]
        answer = options[gold - 1] if answer_form == "text" else meta["gold"]
    elif split != "test":
        raise UserError(f"{question.place}: {question.key}.gold_label is missing; only the test split has no labels")
    return {
        "id": question.text("question_unique_id") if "question_unique_id" in question else name,
        "task": "quality",
        "context": context,
        "prompt": f"{question.text('question')}\n{lettered(options)}",
        "answer": answer,
        "meta": meta,
    }


CONVERTER = Converter(
    "quality", "QuALITY: multiple-choice questions about stories and articles", add_options, find_splits, convert
)
