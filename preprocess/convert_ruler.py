"""Convert the files of RULER's official generator (github.com/hsiehjackson/RULER) to JSONL for the chunking step.

    python preprocess/convert_ruler.py --input RULER/results/MODEL/synthetic --output_dir data/ruler

It writes a file a length, `ruler_4096.jsonl`. `input` is taken apart into context and prompt; the prompt ends with the
official answer prefix, and `outputs` are the answers, all of them asked for (in qa_1 and qa_2 any one will do).
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from preprocess.ruler_templates import TASKS, RulerSample, check_task, split_input
from preprocess.text_length import parse_length
from preprocess.writing import add_overwrite, check_new, writing
from utils.common_utils import UserError, atomic_write_lines, read_jsonl, run_cli


def find_files(inputs: list[Path]) -> list[Path]:
    """Return the files named, and the .jsonl files of the folders named, in the order of their names.

    Raises:
        UserError: a path is missing, or a folder holds none.
    """
    files = []
    for path in inputs:
        if not path.exists():
            raise UserError(f"--input={path}: no such file or folder")
        found = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
        if not found:
            raise UserError(f"--input={path}: the folder holds no .jsonl file")
        files += found
    return files


def task_of(path: Path, task: str | None) -> str:
    """Return the task of a file: as given, or the name of the file or a folder, as in `vt/validation.jsonl`.

    Raises:
        UserError: neither tells.
    """
    if task is not None:
        check_task(task, "--task")
        return task
    for name in (path.stem, *(folder.name for folder in path.absolute().parents)):
        if name in TASKS:
            return name
    raise UserError(f"{path}: neither its name nor a folder's is one of RULER's tasks; name it with --task")


def length_of(path: Path, length: int | None) -> int:
    """Return the length that a file was generated to: as given, or a folder's name, as in `synthetic/4096/data/...`.

    Raises:
        UserError: neither tells.
    """
    if length is not None:
        return length
    for folder in path.absolute().parents:
        if folder.name.isascii() and folder.name.isdigit() and int(folder.name) >= 512:
            return int(folder.name)
    raise UserError(f"{path}: no folder above it is named by the length, such as 4096; name the length with --length")


def convert_file(path: Path, task: str, length: int) -> list[dict]:
    """Return the records of an official file.

    Raises:
        UserError: a line is no sample of the task; the message names file and line.
    """
    records = []
    for number, official in enumerate(read_jsonl(path)):
        place = f"{path}: sample {number}"
        sample, answers = _read_sample(official, task, place)
        meta = {"kind": task, "ruler_task": task, "length": length, "source": "official"}
        if isinstance(official.get("length"), int):
            meta["num_tokens"] = official["length"]
        records.append(
            {
                "id": f"{task}-{length}-{official.get('index', number)}",
                "task": "ruler",
                "context": sample.context,
                "prompt": sample.prompt,
                "answer": answers,
                "meta": meta | {"instruction": sample.instruction, "gap": sample.gap},
            }
        )
    if not records:
        raise UserError(f"{path}: holds no sample; was it generated completely?")
    return records


def _read_sample(official: dict, task: str, place: str) -> tuple[RulerSample, list[str]]:
    text, answers = official.get("input"), official.get("outputs")
    if not isinstance(text, str) or not isinstance(answers, list) or not all(isinstance(each, str) for each in answers):
        raise UserError(
            f"{place}: a RULER sample has a text 'input' and a list of texts 'outputs'; found {list(official)}"
        )
    if not answers:
        raise UserError(f"{place}: 'outputs' is empty")
    # Newer versions of the generator keep the answer prefix apart from the input.
    sample = split_input(text + official.get("answer_prefix", ""), task)
    if sample is None:
        raise UserError(f"{place}: its input has not the wording of {task}: {text[:80]!r} ... {text[-80:]!r}")
    return sample, answers


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("--input", type=Path, nargs="+", required=True, metavar="PATH", help="official JSONL files, or folders of them")
    add("--output_dir", type=Path, required=True, metavar="FOLDER", help="folder for a file a length")
    add("--task", help="of all files (default: the name of a folder or file, as niah_single_1/validation.jsonl)")
    add("--length", help="of all files, as 4096 or 4k (default: the name of a folder, as synthetic/4096/data)")
    add_overwrite(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    length = parse_length(args.length, "--length") if args.length else None
    by_length: dict[int, list[dict]] = defaultdict(list)
    for path in find_files(args.input):
        by_length[length_of(path, length)] += convert_file(path, task_of(path, args.task), length_of(path, length))
    paths = {found: args.output_dir / f"ruler_{found}.jsonl" for found in sorted(by_length)}
    check_new(paths.values(), args.overwrite)
    for found, path in paths.items():
        records = by_length[found]
        record_id, count = Counter(record["id"] for record in records).most_common(1)[0]
        if count > 1:
            raise UserError(
                f"--input: {count} samples have the id {record_id!r}; convert each copy to a folder of its own"
            )
        with writing(args.output_dir, "--output_dir"):
            atomic_write_lines(path, (json.dumps(record, ensure_ascii=False) + "\n" for record in records))
        counts = Counter(record["meta"]["ruler_task"] for record in records)
        print(f"{path}: {len(records):,} samples ({', '.join(f'{task} {n:,}' for task, n in counts.items())})")


if __name__ == "__main__":
    run_cli(main)
