"""TriviaQA's reading comprehension (nlp.cs.washington.edu/triviaqa): qa/<domain>-<split>.json and evidence/.

Full evidence: of the Wikipedia domain one record a question, all its documents one after the other, `id` the
QuestionId; of the web domain one record a question and document, `id` "QuestionId--Filename". These are the official
scorer's keys. With --document_tokens N (800 in the official conversion) one record a question and document in either
domain, cut after N tokens.
"""

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from preprocess.converters.release import Converter, Counts, Fields, Published, Split, add_input_dir
from utils.common_utils import UserError, read_json, read_text

FILES = {
    "train": "{domain}-train.json",
    "validation": "{domain}-dev.json",
    "verified": "verified-{domain}-dev.json",
    "test": "{domain}-test-without-answers.json",
}
PUBLISHED = {"wikipedia": (61888, 7993, 7701), "web": (76496, 9951, 9509)}
"""Questions of train, validation and test."""
SOURCE = "their sums are those of the rc configuration of mandarjoshi/trivia_qa"

_PAGES = (("EntityPages", "wikipedia"), ("SearchResults", "web"))
_TOKEN = re.compile(r"\w+(?:[-.,/]\w+)*|[^\w\s]")


def add_options(parser: ArgumentParser) -> None:
    add_input_dir(parser, "the release: a folder with qa and evidence")
    parser.add_argument("--domain", choices=tuple(PUBLISHED), default="wikipedia", help="default: wikipedia")
    parser.add_argument(
        "--document_tokens",
        type=int,
        help="one record a question and document, cut after this many tokens; officially 800 (default: full evidence)",
    )
    parser.add_argument(
        "--answerable_only",
        action="store_true",
        help="leave out of train, and count, the records whose context does not hold any of the answers",
    )


def find_splits(args: Namespace) -> list[Split]:
    if args.document_tokens is not None and args.document_tokens < 1:
        raise UserError(f"--document_tokens={args.document_tokens}: must be at least 1; officially 800")
    for folder in ("qa", "evidence"):
        if not (args.input_dir / folder).is_dir():
            raise UserError(f"--input_dir={args.input_dir}: no folder {folder} in it; unpack triviaqa-rc.tar.gz there")
    numbers = dict(zip(("train", "validation", "test"), PUBLISHED[args.domain], strict=True))
    splits = []
    for split, name in FILES.items():
        path = args.input_dir / "qa" / name.format(domain=args.domain)
        if path.is_file():
            published = Published({"questions": numbers[split]}, SOURCE) if split in numbers else None
            splits.append(Split(split, path, published))
    if not splits:
        raise UserError(f"{args.input_dir / 'qa'}: no file such as {args.domain}-train.json in it")
    return splits


def convert(split: Split, args: Namespace, counts: Counts) -> Iterator[dict]:
    release = Fields(read_json(split.source), str(split.source), "a file of TriviaQA's folder qa")
    verified_only = "VerifiedEval" in release and release.get("VerifiedEval", bool)
    one_by_one = args.domain == "web" or args.document_tokens is not None
    for question in tqdm(release.items("Data"), desc=split.name, unit="question", disable=None):
        if verified_only and not question.value.get("QuestionPartOfVerifiedEval", True):
            counts.dropped["questions that are not verified"] += 1
            continue
        counts.read["questions"] += 1
        pages = _pages(question, verified_only and args.domain == "wikipedia")
        if not pages:
            counts.dropped["questions without evidence"] += 1
        counts.read["documents"] += len(pages)
        for group in [[page] for page in pages] if one_by_one else [pages] * bool(pages):
            record = _record(question, group, args, one_by_one, counts)
            if record is None:
                continue
            if args.answerable_only and split.name == "train" and not record["meta"]["answer_in_context"]:
                counts.dropped["records without an answer in their context"] += 1
                continue
            yield record


def _pages(question: Fields, verified_only: bool) -> list[tuple[str, str]]:
    """Return folder and file name of the evidence documents of a question."""
    pages = []
    for key, folder in _PAGES:
        if key not in question:
            continue
        for page in question.items(key):
            if not verified_only or page.value.get("DocPartOfVerifiedEval", True):
                pages.append((folder, page.get("Filename", str)))
    return pages


def _record(
    question: Fields, pages: list[tuple[str, str]], args: Namespace, one_by_one: bool, counts: Counts
) -> dict | None:
    texts = [_read_evidence(args.input_dir, folder, name, args.document_tokens) for folder, name in pages]
    counts.dropped["empty documents"] += sum(not text for text in texts)
    context = "\n\n".join(text for text in texts if text)
    if not context:
        counts.dropped["records without text"] += 1
        return None
    answers, aliases = _answers(question)
    name = question.text("QuestionId")
    meta: dict = {"question": name, "documents": [page for _, page in pages]}
    if answers:
        lowered = context.lower()
        meta["answer_in_context"] = any(alias in lowered for alias in aliases)
        counts.read["records with an answer in their context"] += meta["answer_in_context"]
    return {
        "id": f"{name}--{pages[0][1]}" if one_by_one else name,
        "task": "triviaqa",
        "context": context,
        "prompt": question.text("Question"),
        "answer": answers,
        "meta": meta,
    }


def _answers(question: Fields) -> tuple[list[str], list[str]]:
    """Return the answers, the preferred one first, and the normalised aliases; none where they are withheld."""
    if "Answer" not in question:
        return [], []
    answer = question.child("Answer")
    more = answer.texts("HumanAnswers") if "HumanAnswers" in answer else []
    texts = [text.strip() for text in (answer.text("Value"), *answer.texts("Aliases"), *more)]
    return list(dict.fromkeys(text for text in texts if text)), [a for a in answer.texts("NormalizedAliases") if a]


def _read_evidence(input_dir: Path, folder: str, name: str, max_tokens: int | None) -> str:
    path = input_dir / "evidence" / folder / name
    text = read_text(path, f"{path} (evidence that the questions name)").strip()
    return text if max_tokens is None else first_tokens(text, max_tokens)


def first_tokens(text: str, number: int) -> str:
    """Return the beginning of a text that holds so many words and punctuation marks, as it stands.

    The official conversion counts NLTK's tokens and joins them with spaces; the cut falls close to the same place.
    """
    end = 0
    for count, match in enumerate(_TOKEN.finditer(text), start=1):
        end = match.end()
        if count == number:
            return text[:end]
    return text


CONVERTER = Converter(
    "triviaqa", "TriviaQA: trivia questions with evidence from Wikipedia or the web", add_options, find_splits, convert
)
