"""GovReport: the authors' release (folders crs, gao, split_ids), or a copy with one report and summary a row.

From the release the context is the report's sections, each title and paragraph a paragraph of its own, with white space
inside squeezed. As its README has it, the paragraphs of GAO's section "Letter" are left out (its subsections are kept).
Of GAO's highlights, "What GAO Recommends" is left out of the summary unless --with_recommendations is given; the
`plain_text` configuration of launch/gov_report, described as the paper's, does the same.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from preprocess.converters.release import Converter, Counts, Fields, Published, Split, add_input_dir
from preprocess.converters.rows import count_rows, describe, files_by_split, read_rows
from utils.common_utils import UserError, read_json, read_text

PROMPT = "Write a one-page summary of the report."
AGENCIES = ("crs", "gao")
ID_FILES = {"train": "train", "validation": "valid", "test": "test"}
"""Our splits, and the release's: split_ids/crs_valid.ids."""
RELEASE = {"train": (6514, 11005), "validation": (362, 612), "test": (362, 611)}
"""CRS and GAO reports of each split, as TensorFlow Datasets counts them in the release."""
COPIES = {
    ("report", "summary"): (
        {"train": 17517, "validation": 973, "test": 973},
        "the card of ccdv/govreport-summarization",
    ),
    ("document", "summary"): ({"train": 17519, "validation": 974, "test": 973}, "the card of launch/gov_report"),
    ("input", "output"): (
        {"train": 17457, "validation": 972, "test": 973},
        "SCROLLS' gov_report, not checked against its files",
    ),
}
"""Names of the fields of a copy with its report and its summary: reports of each split, and the figures' source."""

_EXPECTED = "a report of the GovReport release"


class Copy(NamedTuple):
    """The source of a split of a copy; that of the release is its id files, one an agency."""

    paths: list[Path]
    fields: tuple[str, str]


def add_options(parser: ArgumentParser) -> None:
    add_input_dir(
        parser,
        "the release (a folder with crs, gao and split_ids), or a folder with train, validation and test files of a "
        "copy: JSONL or Parquet with the fields report and summary, document and summary, or input and output",
    )
    parser.add_argument(
        "--with_recommendations",
        action="store_true",
        help='keep the section "What GAO Recommends" in the summaries of the release (default: leave it out)',
    )


def find_splits(args: Namespace) -> list[Split]:
    """Return the splits of the release if its folders are there, else those of a copy."""
    for folder in (args.input_dir, args.input_dir / "gov-report"):
        if (folder / "split_ids").is_dir():
            return _release_splits(folder)
    for folder in (args.input_dir, args.input_dir / "document", args.input_dir / "data"):
        if files := files_by_split(folder):
            return [_copy_split(split, paths) for split, paths in files.items()]
    raise UserError(
        f"--input_dir={args.input_dir}: neither a folder split_ids, as in the GovReport release, "
        "nor files such as train.jsonl or train-00000-of-00002.parquet in it"
    )


def _release_splits(folder: Path) -> list[Split]:
    splits = []
    for split, name in ID_FILES.items():
        paths = [folder / "split_ids" / f"{agency}_{name}.ids" for agency in AGENCIES]
        if any(path.is_file() for path in paths):
            counts = dict(zip(("CRS reports", "GAO reports"), RELEASE[split], strict=True))
            splits.append(Split(split, paths, Published(counts, "the release's split_ids")))
    if not splits:
        raise UserError(f"{folder / 'split_ids'}: no file such as crs_train.ids in it; the GovReport release has six")
    return splits


def _copy_split(split: str, paths: list[Path]) -> Split:
    place, row = next(read_rows(paths), (str(paths[0]), {}))
    for fields, (counts, source) in COPIES.items():
        if isinstance(row, dict) and set(fields) <= set(row):
            return Split(split, Copy(paths, fields), Published({"reports": counts[split]}, source))
    found = describe(row) if isinstance(row, dict) else type(row).__name__
    names = "; ".join(" and ".join(fields) for fields in COPIES)
    raise UserError(f"{place}: holds {found}; a copy of GovReport has the fields {names}")


def convert(split: Split, args: Namespace, counts: Counts) -> Iterator[dict]:
    if isinstance(split.source, Copy):
        return _convert_copy(split, counts)
    return _convert_release(split, args.with_recommendations, counts)


def _convert_release(split: Split, with_recommendations: bool, counts: Counts) -> Iterator[dict]:
    reports = []
    for agency, path in zip(AGENCIES, split.source, strict=True):
        names = read_text(path).split()
        counts.read[f"{agency.upper()} reports"] += len(names)
        reports += [(agency, path.parent.parent / agency / f"{name}.json") for name in names]
    for agency, path in tqdm(reports, desc=split.name, unit="report", disable=None):
        report = Fields(read_json(path), str(path), _EXPECTED)
        if agency == "crs":
            context, summary = _section_text(report.child("reports")), _squeezed(report.texts("summary"))
        else:
            context = [text for section in report.items("report") for text in _section_text(section, "Letter")]
            summary = _highlights(report, with_recommendations)
        record = _record(f"{agency.upper()}_{path.stem}", "\n\n".join(context), "\n".join(summary), counts)
        if record is not None:
            yield record | {"meta": {"agency": agency.upper()}}


def _section_text(section: Fields, without: str | None = None) -> list[str]:
    """Return title and paragraphs of a section and all below it; of one titled `without` only those below it."""
    title = section.text("section_title")
    texts = [] if title == without else [title, *section.texts("paragraphs")]
    for subsection in section.items("subsections"):
        texts += _section_text(subsection, without)
    return _squeezed(texts)


def _squeezed(texts: Sequence[str]) -> list[str]:
    """Squeeze the white space of texts and leave out those without any other."""
    return [squeezed for text in texts if (squeezed := " ".join(text.split()))]


def _highlights(report: Fields, with_recommendations: bool) -> list[str]:
    return _squeezed(
        [
            paragraph
            for section in report.items("highlight")
            if with_recommendations or section.text("section_title") != "What GAO Recommends"
            for paragraph in section.texts("paragraphs")
        ]
    )


def _convert_copy(split: Split, counts: Counts) -> Iterator[dict]:
    paths, (report_field, summary_field) = split.source
    rows = tqdm(read_rows(paths), desc=split.name, unit="report", total=count_rows(paths), disable=None)
    for number, (place, row) in enumerate(rows):
        report = Fields(row, place, "a report of a GovReport copy")
        counts.read["reports"] += 1
        # SCROLLS withholds the summaries of its test split: null, which is not the same as an empty one.
        summary = report.get(summary_field, str, type(None))
        name = str(report.get("id", str, int)) if "id" in report else f"{split.name}:{number}"
        record = _record(name, report.text(report_field), summary, counts)
        if record is not None:
            yield record


def _record(name: str, context: str, summary: str | None, counts: Counts) -> dict | None:
    if not context:
        counts.dropped["reports without text"] += 1
    elif summary is not None and not summary.strip():
        counts.dropped["reports without a summary"] += 1
    else:
        answer = [] if summary is None else summary.strip()
        return {"id": name, "task": "govreport", "context": context, "prompt": PROMPT, "answer": answer}
    return None


CONVERTER = Converter(
    "govreport",
    "GovReport: government reports and their summaries (the crs/gao release, or a copy in JSONL or Parquet)",
    add_options,
    find_splits,
    convert,
)
