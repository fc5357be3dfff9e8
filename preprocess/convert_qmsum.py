"""Convert QMSum (github.com/Yale-LILY/QMSum, folder data/ALL) to JSONL: one record a general or specific query.

    python preprocess/convert_qmsum.py --input_dir QMSum/data/ALL --output_dir data/qmsum

The context is the whole meeting, one `Speaker: content` line a turn, with the release's case and punctuation; runs of
white space inside a turn become one space. Noise markers such as {vocalsound} stay, unless --strip_noise_markers is
given.
"""

import argparse
import json
import re
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.common_utils import UserError, atomic_write_text, read_json, run_cli

OUTPUT_NAMES = {"train": "train", "val": "validation", "test": "test"}
"""The release's split folders, and ours."""
PUBLISHED = {"train": (162, 1257), "val": (35, 272), "test": (35, 281)}
"""Meetings and queries of each split, as the QMSum paper counts them."""
NOISE_MARKERS = re.compile(r"\{\s*(?:vocalsound|disfmarker|pause|gap|nonvocalsound|comment)\s*\}")
"""The transcribers' markers in the release; the official processing strips all of them but {comment}."""


def convert_meeting(path: Path, strip_noise_markers: bool, counts: Counter) -> list[dict]:
    """Return the records of one meeting file and add what was read and dropped to `counts`.

    `meta.topic_span` of a specific query is the release's relevant_text_span: first and last turn, from 0, inclusive.
    `meta.line_span` is the same in lines of the context, where turns without content are left out.

    Raises:
        UserError: the file is no JSON object, or a key is missing or of another type; the message names file and key.
    """
    meeting = read_json(path)
    if not isinstance(meeting, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(meeting).__name__}; is this a QMSum meeting?")
    lines, turn_of_line = _read_turns(path, meeting, strip_noise_markers, counts)
    num_turns = len(meeting["meeting_transcripts"])
    context = "\n".join(lines)
    records = []
    for kind in ("general", "specific"):
        queries = f"{kind}_query_list"
        for number, query in enumerate(_get(path, meeting, queries, list)):
            key = f"{queries}[{number}]"
            prompt, answer = (_get(path, query, name, str, key).strip() for name in ("query", "answer"))
            meta: dict = {"meeting": path.stem, "kind": kind}
            if kind == "specific":
                spans = _read_spans(path, _get(path, query, "relevant_text_span", list, key), key)
                counts["spans_outside"] += sum(not 0 <= first <= last < num_turns for first, last in spans)
                meta |= {"topic_span": spans, "line_span": _to_lines(spans, turn_of_line)}
            if not prompt or not answer:
                counts["empty_queries"] += 1
                continue
            counts[kind] += 1
            record = {"id": f"{path.stem}:{kind}:{number}", "task": "qmsum"}
            records.append(record | {"context": context, "prompt": prompt, "answer": answer, "meta": meta})
    counts["meetings"] += 1
    return records


def _read_turns(path: Path, meeting: dict, strip_noise_markers: bool, counts: Counter) -> tuple[list[str], list[int]]:
    """Return the lines of the context and, for each line, the number of its turn."""
    lines, turn_of_line = [], []
    for number, turn in enumerate(_get(path, meeting, "meeting_transcripts", list)):
        key = f"meeting_transcripts[{number}]"
        speaker, content = (" ".join(_get(path, turn, name, str, key).split()) for name in ("speaker", "content"))
        counts["turns"] += 1
        if not content:
            counts["empty_turns"] += 1
            continue
        if strip_noise_markers:
            content = " ".join(NOISE_MARKERS.sub(" ", content).split())
            if not content:
                counts["noise_turns"] += 1
                continue
        lines.append(f"{speaker}: {content}")
        turn_of_line.append(number)
    if not lines:
        raise UserError(f"{path}: meeting_transcripts holds no turn with content; the file is not complete")
    return lines, turn_of_line


def _read_spans(path: Path, spans: list, key: str) -> list[list[int]]:
    """Turn the release's spans, pairs of strings, into pairs of integers."""
    pairs = []
    for span in spans:
        try:
            first, last = span
            pairs.append([int(first), int(last)])
        except (TypeError, ValueError):
            raise UserError(f"{path}: {key}.relevant_text_span: {span!r} is not a pair of turn numbers") from None
    return pairs


def _to_lines(spans: list[list[int]], turn_of_line: list[int]) -> list[list[int]]:
    """Turn spans of turns into spans of lines; a span whose turns were all dropped has none."""
    line_spans = []
    for first, last in spans:
        lines = [line for line, turn in enumerate(turn_of_line) if first <= turn <= last]
        if lines:
            line_spans.append([lines[0], lines[-1]])
    return line_spans


def _get(path: Path, holder: object, name: str, kind: type, key: str = ""):
    """Return `holder[name]`, or name the file and the key that is missing or of another type."""
    full_key = f"{key}.{name}" if key else name
    if not isinstance(holder, dict) or name not in holder:
        raise UserError(f"{path}: the key {full_key} is missing; a QMSum meeting of data/ALL has it")
    if not isinstance(holder[name], kind):
        raise UserError(f"{path}: {full_key} is of type {type(holder[name]).__name__}, expected {kind.__name__}")
    return holder[name]


def find_splits(input_dir: Path, splits: list[str] | None) -> dict[str, Path]:
    """Return the folders of the splits asked for, or of all that are there.

    `input_dir` holds folders named train, val or test, or is one of them itself.

    Raises:
        UserError: a folder asked for is missing, there is none at all, or a name is unknown.
    """
    if unknown := [split for split in splits or [] if split not in OUTPUT_NAMES]:
        raise UserError(f"--splits: unknown split {unknown[0]!r}; known are {', '.join(OUTPUT_NAMES)}")
    found = {split: input_dir / split for split in OUTPUT_NAMES if (input_dir / split).is_dir()}
    if not found and input_dir.is_dir() and input_dir.resolve().name in OUTPUT_NAMES:
        found = {input_dir.resolve().name: input_dir}
    if not found:
        raise UserError(
            f"--input_dir={input_dir}: no folder train, val or test in it; name the release's folder data/ALL"
        )
    if missing := [split for split in splits or [] if split not in found]:
        raise UserError(f"--splits: {input_dir} has no folder {missing[0]}; it has {', '.join(found)}")
    return {split: folder for split, folder in found.items() if splits is None or split in splits}


def convert_split(folder: Path, output_path: Path, strip_noise_markers: bool) -> Counter:
    """Convert the meetings of a folder in the order of their names and return the counts.

    Raises:
        UserError: the folder holds no JSON file, or one of them is not a meeting.
    """
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise UserError(f"{folder}: holds no .json file; the QMSum release has one a meeting there")
    counts = Counter(other_files=sum(1 for _ in folder.iterdir()) - len(paths))
    records = [record for path in paths for record in convert_meeting(path, strip_noise_markers, counts)]
    atomic_write_text(output_path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    return counts


def report(split: str, output_path: Path, counts: Counter) -> None:
    """Print what was read and dropped, and warn on stderr of what differs from the published counts."""
    queries = counts["general"] + counts["specific"]
    print(
        f"{output_path}: {counts['meetings']} meetings, {queries:,} queries "
        f"({counts['general']} general, {counts['specific']:,} specific), {counts['turns']:,} turns"
    )
    print(f"  dropped: {counts['empty_turns']} turns without content, {counts['noise_turns']} of noise markers only")
    warnings = {
        "queries without text were dropped": counts["empty_queries"],
        "relevant_text_spans reach outside the meeting": counts["spans_outside"],
        "files that are not .json were passed over": counts["other_files"],
    }
    for text, number in warnings.items():
        if number:
            print(f"warning: {split}: {number} {text}", file=sys.stderr)
    if (counts["meetings"], queries) != PUBLISHED[split]:
        meetings, pairs = PUBLISHED[split]
        print(
            f"warning: {split}: {counts['meetings']} meetings and {queries:,} queries, "
            f"but {meetings} and {pairs:,} are published; the folder is not the whole release",
            file=sys.stderr,
        )


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Convert the QMSum release to train, validation and test.jsonl.")
    parser.add_argument(
        "--input_dir", type=Path, required=True, help="data/ALL of the release, or one of its folders train, val, test"
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the JSONL files")
    parser.add_argument("--splits", help="comma-separated, of train,val,test (default: all that are there)")
    parser.add_argument(
        "--strip_noise_markers",
        action="store_true",
        help="remove {vocalsound}, {disfmarker}, {pause}, {gap}, {nonvocalsound} and {comment} (default: keep them)",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    splits = [split.strip() for split in args.splits.split(",")] if args.splits else None
    for split, folder in find_splits(args.input_dir, splits).items():
        output_path = args.output_dir / f"{OUTPUT_NAMES[split]}.jsonl"
        report(split, output_path, convert_split(folder, output_path, args.strip_noise_markers))


if __name__ == "__main__":
    run_cli(main)
