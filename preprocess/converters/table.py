"""Any JSONL, JSON, CSV or Parquet file, or anything that the `datasets` library loads, by naming the fields to take.

A field is a name or a dotted path; in a list the values of its items are taken ("answers.text"). Without a prompt and
an answer the records are contexts for the understanding objective.
"""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from preprocess.converters.release import Converter, Counts, Split
from preprocess.converters.rows import SUFFIXES, count_rows, describe, files_by_split, read_rows, value_at
from utils.common_utils import UserError, closest


def add_options(parser: ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--input",
        type=Path,
        help="a .jsonl, .json, .csv, .tsv or .parquet file, which becomes train.jsonl, or a folder with files named "
        "train..., validation..., test...",
    )
    source.add_argument("--dataset", help="name or path that datasets.load_dataset takes; needs the datasets library")
    parser.add_argument("--config", help="configuration of --dataset")
    parser.add_argument("--context_field", required=True, help="field with the context")
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt_field", help="field with the prompt")
    prompt.add_argument("--prompt", help="the prompt of every record, where no field holds it")
    parser.add_argument("--answer_field", help="field with the answer, or the list of answers")
    parser.add_argument("--id_field", help="field with the record's id (default: the number of the row)")
    parser.add_argument("--meta_fields", default="", help="comma-separated fields to keep in meta, under their names")
    parser.add_argument("--task", default="", help="task of the records, which selects their prompt template")


def find_splits(args: Namespace) -> list[Split]:
    if (args.answer_field is None) != (args.prompt_field is None and args.prompt is None):
        raise UserError("--answer_field goes with --prompt_field or --prompt: give both, or neither for contexts alone")
    if args.prompt is not None and not args.prompt.strip():
        raise UserError("--prompt: is empty; give the question or instruction that every record asks")
    if args.dataset is not None:
        return _dataset_splits(args.dataset, args.config)
    if args.config is not None:
        raise UserError(f"--config={args.config}: goes with --dataset only")
    if args.input.is_file():
        if args.input.suffix not in SUFFIXES:
            raise UserError(f"--input={args.input}: the name must end in one of {', '.join(SUFFIXES)}")
        return [Split("train", [args.input])]
    files = files_by_split(args.input)
    if not files:
        raise UserError(f"--input={args.input}: neither a file nor a folder with files such as train.jsonl in it")
    return [Split(split, paths) for split, paths in files.items()]


def _dataset_splits(name: str, config: str | None) -> list[Split]:
    # The library is a heavy one that nothing else here needs.
    try:
        import datasets
    except ImportError:
        raise UserError("--dataset: needs the datasets library; pip install datasets") from None
    try:
        loaded = datasets.load_dataset(name, config)
    except Exception as error:  # whatever the library, the hub's client or a data set's own code raises
        raise UserError(f"--dataset={name}: could not be loaded ({type(error).__name__}: {error})") from error
    return [Split(split, rows) for split, rows in loaded.items()]


def convert(split: Split, args: Namespace, counts: Counts) -> Iterator[dict]:
    rows: Iterable[tuple[str, dict]]
    if args.dataset is None:
        rows, total = read_rows(split.source), count_rows(split.source)
    else:
        rows, total = ((f"{split.name}[{n}]", row) for n, row in enumerate(split.source)), len(split.source)
    fields = [field.strip() for field in args.meta_fields.split(",") if field.strip()]
    for number, (place, row) in enumerate(tqdm(rows, desc=split.name, unit="row", total=total, disable=None)):
        counts.read["rows"] += 1
        if not isinstance(row, dict):
            raise UserError(f"{place}: expected an object with fields, found {type(row).__name__}")
        record: dict = {"id": f"{split.name}:{number}"}
        if args.id_field is not None:
            record["id"] = _id(row, args.id_field, place)
        if args.task:
            record["task"] = args.task
        record["context"] = _text(row, args.context_field, "--context_field", place)
        if args.answer_field is not None:
            record["prompt"] = args.prompt or _text(row, args.prompt_field, "--prompt_field", place)
            record["answer"] = _answers(row, args.answer_field, place)
        if fields:
            # What JSON has no form for, such as a date, is kept as its text.
            meta = {field: _required(row, field, "--meta_fields", place) for field in fields}
            record["meta"] = json.loads(json.dumps(meta, default=str))
        if empty := [key for key in ("context", "prompt", "answer") if key in record and not record[key]]:
            counts.dropped[f"rows with an empty {empty[0]}"] += 1
            continue
        yield record


def _required(row: dict, field: str, option: str, place: str) -> object:
    value = value_at(row, field)
    if value is None and not {field, field.split(".")[0]} & row.keys():
        raise UserError(f"{place}: no field {field!r} ({option}); it holds {describe(row)}.{closest(field, row)}")
    return value


def _id(row: dict, field: str, place: str) -> str | int:
    value = _required(row, field, "--id_field", place)
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise UserError(f"{place}: {field} (--id_field) is {value!r}, expected a text or a whole number")
    return value


def _text(row: dict, field: str, option: str, place: str) -> str:
    value = _required(row, field, option, place)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = "\n".join(value)
    if not isinstance(value, str | None):
        raise UserError(f"{place}: {field} ({option}) is of type {type(value).__name__}, expected a text")
    return (value or "").strip()


def _answers(row: dict, field: str, place: str) -> str | list[str]:
    value = _required(row, field, "--answer_field", place)
    values = value if isinstance(value, list) else [value]
    answers = []
    for item in values:
        if isinstance(item, list | dict):
            raise UserError(f"{place}: {field} (--answer_field) holds a {type(item).__name__}, expected texts")
        text = "" if item is None else str(item).strip()
        if text:
            answers.append(text)
    return answers if isinstance(value, list) else "".join(answers)


CONVERTER = Converter(
    "table",
    "any JSONL, JSON, CSV or Parquet, or anything `datasets` loads, by naming its fields",
    add_options,
    find_splits,
    convert,
)
