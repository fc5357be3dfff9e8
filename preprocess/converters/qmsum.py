"""QMSum (github.com/Yale-LILY/QMSum, folder data/ALL): one record a general or specific query.

The context is the whole meeting, one `Speaker: content` line a turn, with the release's case and punctuation; runs of
white space inside a turn become one space. With --context spans it is the turns that answer the query and no others, as
the annotators marked them: short contexts to train on before whole meetings, and an upper bound of finding the turns
(the "gold spans" of the QMSum paper, arXiv 2104.05938). Noise markers such as {vocalsound} stay, unless
--strip_noise_markers is given.
"""

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from preprocess.converters.release import Converter, Counts, Fields, Published, Split, add_input_dir
from utils.common_utils import UserError, read_json

FOLDERS = {"train": "train", "validation": "val", "test": "test"}
"""Our splits, and the release's folders."""
PUBLISHED = {"train": (162, 1257), "validation": (35, 272), "test": (35, 281)}
"""Meetings and queries of each split, as the QMSum paper counts them."""
NOISE_MARKERS = re.compile(r"\{\s*(?:vocalsound|disfmarker|pause|gap|nonvocalsound|comment)\s*\}")
"""The transcribers' markers in the release; the official processing strips all of them but {comment}."""


def add_options(parser: ArgumentParser) -> None:
    add_input_dir(parser, "data/ALL of the release, or one of its folders train, val, test")
    parser.add_argument(
        "--context",
        choices=("meeting", "spans"),
        default="meeting",
        help="what a query is asked about: the whole meeting (default), or just the turns marked as source of its "
        "answer; queries without such turns, all general ones among them, are then dropped",
    )
    parser.add_argument(
        "--strip_noise_markers",
        action="store_true",
        help="remove {vocalsound}, {disfmarker}, {pause}, {gap}, {nonvocalsound} and {comment} (default: keep them)",
    )


def find_splits(args: Namespace) -> list[Split]:
    """Return the splits whose folders are there; the input may also be one of these folders itself."""
    folder = args.input_dir
    found = {split: folder / name for split, name in FOLDERS.items() if (folder / name).is_dir()}
    if not found and folder.is_dir():
        found = {split: folder for split, name in FOLDERS.items() if folder.resolve().name == name}
    if not found:
        raise UserError(f"--input_dir={folder}: no folder train, val or test in it; name the release's folder data/ALL")
    return [
        Split(
            split, source, Published(dict(zip(("meetings", "queries"), PUBLISHED[split], strict=True)), "QMSum's paper")
        )
        for split, source in found.items()
    ]


def convert(split: Split, args: Namespace, counts: Counts) -> Iterator[dict]:
    """Yield the records of the meetings of a folder in the order of their names."""
    paths = sorted(split.source.glob("*.json"))
    if not paths:
        raise UserError(f"{split.source}: holds no .json file; the QMSum release has one a meeting there")
    counts.odd["files that are not .json were passed over"] = sum(1 for _ in split.source.iterdir()) - len(paths)
    for path in tqdm(paths, desc=split.name, unit="meeting", disable=None):
        records = convert_meeting(path, args.strip_noise_markers, counts)
        yield from _cut_to_spans(records, counts) if args.context == "spans" else records


def convert_meeting(path: Path, strip_noise_markers: bool, counts: Counts) -> list[dict]:
    """Return the records of one meeting file, with the whole meeting as the context.

    `meta.topic_span` of a specific query is the release's relevant_text_span: first and last turn, from 0, inclusive.
    `meta.line_span` is the same in lines of the context, where turns without content are left out.
    """
    meeting = Fields(read_json(path), str(path), "a QMSum meeting of data/ALL")
    counts.read["meetings"] += 1
    lines, turn_of_line = _read_turns(meeting, strip_noise_markers, counts)
    num_turns = len(meeting.value["meeting_transcripts"])
    context = "\n".join(lines)
    records = []
    for kind in ("general", "specific"):
        for number, query in enumerate(meeting.items(f"{kind}_query_list")):
            prompt, answer = query.text("query"), query.text("answer")
            meta: dict = {"meeting": path.stem, "kind": kind}
            if kind == "specific":
                spans = _read_spans(query)
                outside = sum(not 0 <= first <= last < num_turns for first, last in spans)
                counts.odd["relevant_text_spans reach outside the meeting"] += outside
                meta |= {"topic_span": spans, "line_span": _to_lines(spans, turn_of_line)}
            if not prompt or not answer:
                counts.dropped["queries without text"] += 1
                continue
            counts.read["queries"] += 1
            counts.read[f"{kind} queries"] += 1
            record = {"id": f"{path.stem}:{kind}:{number}", "task": "qmsum"}
            records.append(record | {"context": context, "prompt": prompt, "answer": answer, "meta": meta})
    return records


def _cut_to_spans(records: list[dict], counts: Counts) -> Iterator[dict]:
    """Yield the records that have spans, with the lines of the spans, each once and in order, as their contexts."""
    for record in records:
        meta = dict(record["meta"])
        chosen = {line for first, last in meta.pop("line_span", []) for line in range(first, last + 1)}
        if not chosen:
            counts.dropped[f"{meta['kind']} queries without spans"] += 1
            continue
        lines = record["context"].split("\n")
        context = "\n".join(lines[line] for line in sorted(chosen))
        yield record | {"id": f"{record['id']}:spans", "context": context, "meta": meta}


def _read_turns(meeting: Fields, strip_noise_markers: bool, counts: Counts) -> tuple[list[str], list[int]]:
    """Return the lines of the context and, for each line, the number of its turn."""
    lines, turn_of_line = [], []
    for number, turn in enumerate(meeting.items("meeting_transcripts")):
        speaker, content = (" ".join(turn.text(name).split()) for name in ("speaker", "content"))
        counts.read["turns"] += 1
        if not content:
            counts.dropped["turns without content"] += 1
            continue
        if strip_noise_markers:
            content = " ".join(NOISE_MARKERS.sub(" ", content).split())
            if not content:
                counts.dropped["turns of noise markers only"] += 1
                continue
        lines.append(f"{speaker}: {content}")
        turn_of_line.append(number)
    if not lines:
        raise UserError(f"{meeting.place}: meeting_transcripts holds no turn with content; the file is not complete")
    return lines, turn_of_line


def _read_spans(query: Fields) -> list[list[int]]:
    """Turn the release's spans, pairs of strings, into pairs of integers."""
    pairs = []
    for span in query.get("relevant_text_span", list):
        try:
            first, last = span
            pairs.append([int(first), int(last)])
        except (TypeError, ValueError):
            raise UserError(
                f"{query.place}: {query.key}.relevant_text_span: {span!r} is not a pair of turn numbers"
            ) from None
    return pairs


def _to_lines(spans: list[list[int]], turn_of_line: list[int]) -> list[list[int]]:
    """Turn spans of turns into spans of lines; a span whose turns were all dropped has none."""
    line_spans = []
    for first, last in spans:
        lines = [line for line, turn in enumerate(turn_of_line) if first <= turn <= last]
        if lines:
            line_spans.append([lines[0], lines[-1]])
    return line_spans


CONVERTER = Converter(
    "qmsum", "QMSum: meetings, and queries about them (data/ALL of the release)", add_options, find_splits, convert
)
