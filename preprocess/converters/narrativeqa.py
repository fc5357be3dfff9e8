"""NarrativeQA (github.com/google-deepmind/narrativeqa): one record a question, with the full story as its context.

The release has documents.csv and qaps.csv; its download_stories.sh fetches the stories to tmp/<document_id>.content.
A story goes from the words of `story_start` to those of `story_end`, its first and last words as the release's authors
kept them. Film scripts come as web pages, whose tags and scripts are dropped; what Project Gutenberg puts before and
behind a book is cut off as well.
"""

import csv
import gzip
import re
import zlib
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from preprocess.converters.html import SCRIPT_END, SCRIPT_START, html_to_text, looks_like_html
from preprocess.converters.release import Converter, Counts, Published, Split, add_input_dir
from utils.common_utils import UserError

SETS = {"train": "train", "validation": "valid", "test": "test"}
"""Our splits, and the release's."""
PUBLISHED = {"train": (1102, 32747), "validation": (115, 3461), "test": (355, 10557)}
"""Stories and questions of each split."""
SOURCE = "the stories in documents.csv, the questions on the card of deepmind/narrativeqa"
SHORTEST_SHARE = 0.5
"""A story with fewer of the published number of words than this share is named: it may be an error page."""

_DOCUMENT_COLUMNS = ("document_id", "set", "kind", "story_word_count", "story_start", "story_end")
_QUESTION_COLUMNS = ("document_id", "set", "question", "answer1", "answer2")
_GUTENBERG_START = re.compile(r"\*{3} ?START OF (?:THE|THIS) PROJECT GUTENBERG[^\n]*\n", re.IGNORECASE)
_GUTENBERG_END = re.compile(
    r"^(?:\*{3} ?END OF (?:THE|THIS) PROJECT GUTENBERG|End of (?:The |This )?Project Gutenberg)", re.I | re.M
)
_SCRIPT_BEGUN_BEFORE = re.compile(f"^[^{SCRIPT_START}{SCRIPT_END}]*{SCRIPT_END}")
_SCRIPT = re.compile(f"{SCRIPT_START}[^{SCRIPT_END}]*{SCRIPT_END}?")


@dataclass(frozen=True)
class Source:
    """A split: its documents' rows, and its questions' rows by document."""

    documents: list[dict]
    questions: dict[str, list[dict]]
    stories: Path


def add_options(parser: ArgumentParser) -> None:
    add_input_dir(parser, "the repository: documents.csv, qaps.csv, and tmp with the stories")
    parser.add_argument(
        "--stories_dir", type=Path, help="folder with <document_id>.content (default: tmp in the input folder)"
    )
    parser.add_argument(
        "--skip_missing_stories",
        action="store_true",
        help="leave out, and count, the questions about stories that are not there (default: stop at the first)",
    )


def find_splits(args: Namespace) -> list[Split]:
    stories = args.stories_dir or args.input_dir / "tmp"
    if not stories.is_dir():
        raise UserError(f"{stories}: no such folder; run the release's download_stories.sh, or give --stories_dir")
    documents = _read_csv(args.input_dir / "documents.csv", _DOCUMENT_COLUMNS)
    questions = _read_csv(args.input_dir / "qaps.csv", _QUESTION_COLUMNS)
    sets = {row["document_id"]: row["set"] for row in documents}
    by_document: dict[str, list[dict]] = {}
    for number, row in enumerate(questions, start=1):
        if sets.get(row["document_id"]) != row["set"]:
            raise UserError(
                f"{args.input_dir / 'qaps.csv'}, question {number}: document {row['document_id']!r} "
                f"is not in the set {row['set']!r} of documents.csv"
            )
        by_document.setdefault(row["document_id"], []).append(row)
    splits = []
    for split, name in SETS.items():
        rows = [row for row in documents if row["set"] == name]
        if rows:
            published = Published(dict(zip(("stories", "questions"), PUBLISHED[split], strict=True)), SOURCE)
            splits.append(Split(split, Source(rows, by_document, stories), published))
    return splits


def _read_csv(path: Path, columns: tuple[str, ...]) -> list[dict]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [column for column in columns if column not in (reader.fieldnames or [])]
            if missing:
                raise UserError(f"{path}: no column {missing[0]}; NarrativeQA's file has {', '.join(columns)}")
            rows = list(reader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; name the folder of the NarrativeQA repository") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8 ({error})") from None
    for number, row in enumerate(rows, start=1):
        if any(row[column] is None for column in columns):
            raise UserError(f"{path}, row {number}: has fewer values than columns")
    return rows


def convert(split: Split, args: Namespace, counts: Counts) -> Iterator[dict]:
    source: Source = split.source
    for document in tqdm(source.documents, desc=split.name, unit="story", disable=None):
        name = document["document_id"]
        questions = source.questions.get(name, [])
        counts.read["stories"] += 1
        counts.read["questions"] += len(questions)
        path = source.stories / f"{name}.content"
        if not path.is_file() and args.skip_missing_stories:
            counts.dropped["stories that are not there"] += 1
            counts.dropped["questions about them"] += len(questions)
            continue
        context = read_story(path, document, counts)
        for number, question in enumerate(questions):
            answers = [question[key].strip() for key in ("answer1", "answer2") if question[key].strip()]
            if not question["question"].strip() or not answers:
                counts.dropped["questions without text or answer"] += 1
                continue
            yield {
                "id": f"{name}:{number}",
                "task": "narrativeqa",
                "context": context,
                "prompt": question["question"].strip(),
                "answer": answers,
                "meta": {"document": name, "kind": document["kind"]},
            }


def read_story(path: Path, document: dict, counts: Counts) -> str:
    """Return the text of a story between its marks, without markup.

    Raises:
        UserError: the file is not there or is damaged, or nothing is left of it.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; run the release's download_stories.sh, or leave out what is missing with "
            "--skip_missing_stories"
        ) from None
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise UserError(
                f"{path}: a damaged or incomplete gzip file ({error}); delete it and run the release's "
                "download_stories.sh again"
            ) from None
    text = _decode(content, counts).replace("\r\n", "\n").replace("\r", "\n")
    if looks_like_html(text):
        text = html_to_text(text, mark_scripts=True)
    text = trim_story(text, document["story_start"], document["story_end"], counts)
    if not text:
        raise UserError(f"{path}: no text in it; delete it and run the release's download_stories.sh again")
    words = document["story_word_count"]
    if words.isdigit() and len(text.split()) < SHORTEST_SHARE * int(words):
        counts.odd[f"stories have fewer than half of the published words, such as {path.name}; error pages?"] += 1
    return text


def _decode(content: bytes, counts: Counts) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        counts.odd["stories are not UTF-8 and were read as Windows-1252"] += 1
        return content.decode("cp1252", errors="replace")


def trim_story(text: str, start: str, end: str, counts: Counts) -> str:
    """Cut a text to what stands from `start` to the last `end` behind it, then to what Gutenberg's own marks enclose.

    The marks are given as words and punctuation with spaces between them; in the text there may be other white space,
    or none. A mark that is not found is counted, and nothing is cut on its side.
    """
    first = _pattern(start).search(text)
    counts.odd["stories do not hold their first words (story_start) and begin where the file does"] += first is None
    if first is not None:
        text = text[first.start() :]
    ends = [match.end() for match in _pattern(end).finditer(text)]
    counts.odd["stories do not hold their last words (story_end) and end where the file does"] += not ends
    if ends:
        text = text[: ends[-1]]
    # What stood in a script served to find the place only.
    text = _SCRIPT.sub("", _SCRIPT_BEGUN_BEFORE.sub("", text))
    if header := _GUTENBERG_START.search(text):
        text = text[header.end() :]
    if footer := _GUTENBERG_END.search(text):
        text = text[: footer.start()]
    return text.strip()


def _pattern(mark: str) -> re.Pattern:
    return re.compile(r"\s*".join(re.escape(part) for part in mark.split()))


CONVERTER = Converter(
    "narrativeqa", "NarrativeQA: questions about whole books and film scripts", add_options, find_splits, convert
)
