"""Questions about a document of the demo world, each with one right answer that only the document gives."""

import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from preprocess.demo_phrases import (
    CLAUSES,
    DESCRIPTIONS,
    KIND_NOUNS,
    QUESTIONS,
    SUMMARY_QUESTIONS,
    WHICH_QUESTIONS,
    mention,
    with_article,
)
from preprocess.demo_world import LINKS, Document, Sentence, value_pool

KINDS = ("one_fact", "which_of_several", "two_facts", "multiple_choice", "summary")
MAX_SUMMARY_SENTENCES = 32
LETTERS = "ABCD"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A question a document can offer, not yet put into words.

    `about` is the kind of the subject and the attribute asked for (or, for which_of_several, the attribute known);
    `subject` is the phrase that tells which subject is meant; `evidence` holds the lines needed, in ascending order.
    """

    kind: str
    about: tuple[str, str]
    subject: str
    answer: str
    evidence: tuple[int, ...]


def sample_questions(
    rng: random.Random, document: Document, kind_weights: dict[str, float], max_questions: int
) -> Iterator[dict]:
    """Yield up to `max_questions` questions: dicts with `prompt`, `answer` and `meta`.

    The kinds are drawn by their weights among those the document can still offer. Question j of Q is drawn from the
    j-th of Q equal parts of the document where that part offers one of its kind, so that a long document is asked about
    at all depths. No question is asked twice.
    """
    offers = {kind: items for kind, items in candidates(document).items() if items and kind_weights.get(kind, 0) > 0}
    for part in range(max_questions):
        if not offers:
            return
        kind = rng.choices(list(offers), [kind_weights[kind] for kind in offers])[0]
        items = offers[kind]
        start, end = (
            bisect_left(items, bound * len(document.sentences) / max_questions, key=lambda item: item.evidence[-1])
            for bound in (part, part + 1)
        )
        candidate = items.pop(rng.randrange(start, end) if start < end else rng.randrange(len(items)))
        if not items:
            del offers[kind]
        yield _put_into_words(rng, document, candidate)


def candidates(document: Document) -> dict[str, list[Candidate]]:
    """Return what can be asked, by kind of question, in the order of the last line needed."""
    one_fact = list(_one_fact(document))
    owners = _owners(document)
    offers = {
        "one_fact": one_fact,
        "which_of_several": list(_which_of_several(document, owners)),
        "two_facts": sorted(_two_facts(document, owners), key=lambda candidate: candidate.evidence[-1]),
        "multiple_choice": [Candidate("multiple_choice", c.about, c.subject, c.answer, c.evidence) for c in one_fact],
        "summary": [],
    }
    if len(document.sentences) <= MAX_SUMMARY_SENTENCES:
        lines = tuple(range(len(document.sentences)))
        offers["summary"].append(Candidate("summary", ("document", "summary"), "", summarize(document), lines))
    return offers


def summarize(document: Document) -> str:
    """Tell how many subjects of each kind a document has and which are named first."""
    subjects = list(document.subjects())
    counts = Counter(kind for kind, _ in subjects)
    counted = [f"{counts[kind]} {nouns[counts[kind] > 1]}" for kind, nouns in KIND_NOUNS.items() if counts[kind]]
    first = [mention(kind, name) for kind, name in subjects[:3]]
    verb = "is" if len(first) == 1 else "are"
    return f"The text tells of {_listed(counted)}. The first named {verb} {_listed(first)}."


def _one_fact(document: Document) -> Iterator[Candidate]:
    for line, sentence in enumerate(document.sentences):
        for attribute, value in sentence.values.items():
            subject = mention(sentence.kind, sentence.subject)
            yield Candidate("one_fact", (sentence.kind, attribute), subject, value, (line,))


def _which_of_several(document: Document, owners: Counter) -> Iterator[Candidate]:
    """Ask for a subject by a value no other has; by two values where only both together are its own."""
    several = {kind for kind, number in Counter(kind for kind, _ in document.subjects()).items() if number > 1}
    for line, sentence in enumerate(document.sentences):
        if sentence.kind not in several:
            continue
        for key in _keys(sentence.kind, sentence.values):
            attributes = [attribute for attribute, _ in key[1:]]
            parts_are_shared = all(owners[sentence.kind, part] > 1 for part in key[1:])
            if owners[key] == 1 and (len(attributes) == 1 or parts_are_shared):
                clause = " and ".join(_clause(sentence, attribute) for attribute in attributes)
                about = (sentence.kind, "+".join(attributes))
                yield Candidate("which_of_several", about, clause, sentence.subject, (line,))


def _two_facts(document: Document, owners: Counter) -> Iterator[Candidate]:
    """Join two lines: a subject named by way of another, or a person known by one line and told of in another."""
    subjects = document.subjects()
    for line, sentence in enumerate(document.sentences):
        for attribute, value in sentence.values.items():
            target_kind = LINKS.get((sentence.kind, attribute), "")
            if target_lines := subjects.get((target_kind, value), []):
                description = DESCRIPTIONS[sentence.kind, attribute]
                subject = description.format(subject=mention(sentence.kind, sentence.subject))
                yield from _ask_elsewhere(document, line, subject, target_lines)
            if sentence.kind == "person" and owners["person", (attribute, value)] == 1:
                subject = f"the person who {_clause(sentence, attribute)}"
                yield from _ask_elsewhere(document, line, subject, subjects["person", sentence.subject])


def _ask_elsewhere(document: Document, line: int, subject: str, target_lines: list[int]) -> Iterator[Candidate]:
    """Ask for every value of the target's lines, the line of the description itself aside."""
    for target_line in target_lines:
        if target_line != line:
            target = document.sentences[target_line]
            evidence = (min(line, target_line), max(line, target_line))
            for attribute, value in target.values.items():
                yield Candidate("two_facts", (target.kind, attribute), subject, value, evidence)


def _keys(kind: str, values: dict[str, str]) -> Iterator[tuple]:
    """Yield what a subject may be known by: (kind, (attribute, value)), and the same with each pair of attributes."""
    for size in (1, 2):
        for items in combinations(sorted(values.items()), size):
            yield kind, *items


def _owners(document: Document) -> Counter:
    """Count the subjects that each key fits; what several lines say of one person counts together."""
    owners: Counter = Counter()
    for (kind, _), lines in document.subjects().items():
        values = {name: value for line in lines for name, value in document.sentences[line].values.items()}
        owners.update(_keys(kind, values))
    return owners


def _clause(sentence: Sentence, attribute: str) -> str:
    value = sentence.values[attribute]
    return CLAUSES[sentence.kind, attribute].format(value=with_article(value) if attribute == "profession" else value)


def _put_into_words(rng: random.Random, document: Document, candidate: Candidate) -> dict:
    kind, attribute = candidate.about
    meta = {
        "kind": candidate.kind,
        "attribute": f"{kind}.{attribute}",
        "num_sentences": len(document.sentences),
        "evidence": list(candidate.evidence),
    }
    if candidate.kind == "summary":
        prompt = rng.choice(SUMMARY_QUESTIONS)
    elif candidate.kind == "which_of_several":
        prompt = rng.choice(WHICH_QUESTIONS[kind]).format(clause=candidate.subject)
    else:
        prompt = rng.choice(QUESTIONS[kind, attribute]).format(subject=candidate.subject)
    if candidate.kind == "multiple_choice":
        meta["options"], meta["gold"] = _options(rng, document, candidate)
        lines = (f"({letter}) {option}" for letter, option in zip(LETTERS, meta["options"], strict=True))
        prompt = "\n".join([prompt, *lines])
    return {"prompt": prompt, "answer": candidate.answer, "meta": meta}


def _options(rng: random.Random, document: Document, candidate: Candidate) -> tuple[list[str], str]:
    """Return four options and the letter of the right one; wrong ones are of the document, as far as it has them."""
    kind, attribute = candidate.about
    stated = (sentence.values.get(attribute) for sentence in document.sentences if sentence.kind == kind)
    others = [value for value in dict.fromkeys(stated) if value not in (None, candidate.answer)]
    options = rng.sample(others, min(len(others), len(LETTERS) - 1))
    pool = value_pool(kind, attribute, document.split)
    while len(options) < len(LETTERS) - 1:
        value = rng.choice(pool)
        if value not in (*options, candidate.answer):
            options.append(value)
    position = rng.randrange(len(LETTERS))
    options.insert(position, candidate.answer)
    return options, LETTERS[position]


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
