"""LongBench v2 (data.json of THUDM/LongBench-v2, or its Parquet): one record an item, to be evaluated on.

The record's prompt and prompts/longbench_v2.txt together are the benchmark's zero-shot prompt. The answer is the
letter; `meta` has what the six columns of the table need.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path

from tqdm import tqdm

from preprocess.converters.release import Converter, Counts, Fields, Published, Split, add_input_dir, lettered
from preprocess.converters.rows import count_rows, read_rows, table_files
from utils.common_utils import UserError

PUBLISHED = Published(
    {"items": 503, "easy": 192, "hard": 311, "short": 180, "medium": 215, "long": 108},
    "LongBench v2's paper for the 503, descriptions of the benchmark for the groups",
)
_CHOICES = ("choice_A", "choice_B", "choice_C", "choice_D")
_GROUPS = {"difficulty": ("easy", "hard"), "length": ("short", "medium", "long")}


def add_options(parser: ArgumentParser) -> None:
    add_input_dir(parser, "folder with data.json, or with the data set's Parquet files")


def find_splits(args: Namespace) -> list[Split]:
    paths = [args.input_dir / "data.json"]
    if not paths[0].is_file():
        paths = table_files(args.input_dir)
    if not paths:
        raise UserError(f"--input_dir={args.input_dir}: no data.json and no Parquet file of LongBench v2 in it")
    return [Split("test", paths, PUBLISHED)]


def convert(split: Split, args: Namespace, counts: Counts) -> Iterator[dict]:
    paths: list[Path] = split.source
    rows = tqdm(read_rows(paths), desc=split.name, unit="item", total=count_rows(paths), disable=None)
    for place, row in rows:
        yield convert_item(Fields(row, place, "an item of LongBench v2"), counts)


def convert_item(item: Fields, counts: Counts) -> dict:
    """Return the record of an item."""
    texts = {name: item.text(name) for name in ("_id", "context", "question", "answer", *_CHOICES, *_GROUPS)}
    allowed = {"answer": tuple("ABCD"), **_GROUPS}
    for name, values in allowed.items():
        if texts[name] not in values:
            raise UserError(f"{item.place}: {name} is {texts[name]!r}, expected one of {', '.join(values)}")
    counts.read.update(["items", texts["difficulty"], texts["length"]])
    about = {name: item.text(name) for name in ("domain", "sub_domain") if name in item}
    return {
        "id": texts["_id"],
        "task": "longbench_v2",
        "context": texts["context"],
        "prompt": item_prompt(texts),
        "answer": texts["answer"],
        "meta": {
            "options": [texts[name] for name in _CHOICES],
            "gold": texts["answer"],
            "difficulty": texts["difficulty"],
            "length": texts["length"],
            **about,
        },
    }


def item_prompt(item: Mapping[str, str]) -> str:
    """Return the part of the benchmark's 0shot.txt that follows the document."""
    return (
        f"What is the correct answer to this question: {item['question'].strip()}\n"
        f"Choices:\n{lettered([item[name].strip() for name in _CHOICES])}\n\n"
        'Format your response as follows: "The correct answer is (insert answer here)".'
    )


CONVERTER = Converter(
    "longbench_v2", "LongBench v2: 503 multiple-choice items (data.json)", add_options, find_splits, convert
)
