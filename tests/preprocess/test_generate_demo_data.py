"""The demo data: lines that make one chunk each, questions with one right answer, splits that share no names."""

import json
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from preprocess import demo_vocabulary, demo_world
from preprocess.demo_phrases import CLAUSES, DESCRIPTIONS, QUESTIONS, TEMPLATES, WHICH_QUESTIONS, mention, with_article
from preprocess.demo_questions import KINDS, LETTERS, candidates, sample_questions
from preprocess.demo_world import LINKS, NAME_PARTS, SPLITS, VALUES, build_document, max_sentences, split_names
from preprocess.generate_demo_data import (
    DEFAULT_KINDS,
    LengthSpec,
    closed_book_baseline,
    generate_records,
    main,
    parse_kinds,
    parse_lengths,
)
from utils.chunking import split_into_chunks
from utils.common_utils import UserError, read_jsonl

REPOSITORY = Path(__file__).resolve().parents[2]
ALL_KINDS = dict.fromkeys(KINDS, 1.0)


def documents(lengths=(1, 2, 3, 8, 32, 150), number=12) -> list[demo_world.Document]:
    return [
        build_document(random.Random(f"{split}{length}{index}"), split, length)
        for split in SPLITS
        for length in lengths
        for index in range(number if length < 100 else 1)
    ]


def records(split: str, specs: list[LengthSpec], seed: int = 0) -> list[dict]:
    return list(generate_records(split, specs, parse_kinds(DEFAULT_KINDS), seed))


def all_values(kind: str, attribute: str) -> list[str]:
    """Every value an attribute can have, names of other subjects among them."""
    linked = LINKS.get((kind, attribute))
    names = (
        [f"{first} {second}" for first in NAME_PARTS[linked][0] for second in NAME_PARTS[linked][1]] if linked else []
    )
    return [*VALUES.get((kind, attribute), ()), *names]


def test_every_template_fits_the_line_with_the_shortest_and_the_longest_words():
    tried = 0
    for kind, sets in TEMPLATES.items():
        assert len(sets) >= 4
        names = [f"{first} {second}" for first in NAME_PARTS[kind][0] for second in NAME_PARTS[kind][1]]
        for attributes, templates in sets.items():
            assert 2 <= len(attributes) <= 3
            assert len(templates) == 2
            for template in templates:
                for extreme in (min, max):
                    values = {name: extreme(all_values(kind, name), key=len) for name in attributes}
                    if "profession" in values:
                        values["profession"] = extreme(VALUES[kind, "profession"], key=lambda v: len(with_article(v)))
                    line = demo_world.render(template, mention(kind, extreme(names, key=len)), values) + "\n"
                    assert 41 <= len(line) <= 80, (len(line), line)
                    assert all(value in line for value in values.values()), line
                    tried += 1
    assert tried > 70


def test_pools_are_large_and_hold_no_word_twice():
    for name, pool in vars(demo_vocabulary).items():
        if name.isupper():
            assert len(set(pool)) == len(pool), name
            assert all(re.fullmatch(r"[A-Za-z]+( [a-z]+)?", word) for word in pool), name
    assert all(len(pool) >= 30 for pool in VALUES.values())
    assert len(demo_vocabulary.FIRST_NAMES) * len(demo_vocabulary.LAST_NAMES) >= 4_000
    told = {(kind, attribute) for kind, sets in TEMPLATES.items() for attributes in sets for attribute in attributes}
    assert told == set(QUESTIONS) == set(CLAUSES) == set(VALUES) | set(LINKS)
    assert set(DESCRIPTIONS) == set(LINKS)
    assert set(WHICH_QUESTIONS) == set(TEMPLATES)
    assert all(len(phrasings) == 2 for phrasings in (*QUESTIONS.values(), *WHICH_QUESTIONS.values()))


def test_names_belong_to_one_split_and_their_words_to_all():
    for kind in NAME_PARTS:
        by_split = split_names(kind)
        names = [name for split in SPLITS for name in by_split[split]]
        assert len(names) == len(set(names))
        assert 0.5 < len(by_split["train"]) / len(names) < 0.85
    for split in SPLITS:
        firsts, lasts = zip(*(name.split() for name in split_names("person")[split]), strict=True)
        assert set(firsts) == set(demo_vocabulary.FIRST_NAMES), split
        assert set(lasts) == set(demo_vocabulary.LAST_NAMES), split


def test_the_longest_document_has_names_enough_in_every_split():
    for split in SPLITS:
        longest = max_sentences(split)
        for seed in range(5):
            document = build_document(random.Random(seed), split, longest)
            assert len(document.sentences) == longest
        mix = Counter(sentence.kind for sentence in document.sentences)
        assert 0.42 < mix["person"] / longest < 0.58
        if split != "validation":
            assert len(document.context.split()) > 19_500


def test_one_sentence_is_one_chunk_of_80_characters():
    for document in documents():
        lines = document.context.split("\n")
        assert split_into_chunks(document.context, 80) == [*(line + "\n" for line in lines[:-1]), lines[-1]]


def test_subjects_are_unique_and_tell_an_attribute_once():
    recurring = linked = 0
    for document in documents():
        for (kind, name), lines in document.subjects().items():
            assert name in split_names(kind)[document.split]
            told = [attribute for line in lines for attribute in document.sentences[line].values]
            assert len(told) == len(set(told)), (name, told)
            assert len(lines) == 1 or kind == "person"
            recurring += len(lines) > 1
        subjects = document.subjects()
        for sentence in document.sentences:
            for attribute, value in sentence.values.items():
                assert value in sentence.text
                linked += (LINKS.get((sentence.kind, attribute)), value) in subjects
    assert recurring > 50
    assert linked > 50


def described(document: demo_world.Document, kind: str, known: dict[str, str]) -> set[str]:
    """The subjects of a kind that have all the values, whatever the line that states them."""
    stated: dict[str, dict[str, str]] = {}
    for sentence in document.sentences:
        if sentence.kind == kind:
            stated.setdefault(sentence.subject, {}).update(sentence.values)
    return {name for name, values in stated.items() if known.items() <= values.items()}


def test_each_question_has_one_right_answer():
    asked = Counter()
    for document in documents():
        offers = candidates(document)
        facts = [(line, *item) for line, s in enumerate(document.sentences) for item in s.values.items()]
        assert [(c.evidence[0], c.about[1], c.answer) for c in offers["one_fact"]] == facts
        for candidate in offers["which_of_several"]:
            (line,) = candidate.evidence
            kind, attributes = candidate.about
            known = {name: document.sentences[line].values[name] for name in attributes.split("+")}
            assert described(document, kind, known) == {candidate.answer}
            assert len({s.subject for s in document.sentences if s.kind == kind}) >= 2
        for candidate in offers["two_facts"]:
            assert len(set(candidate.evidence)) == 2
            kind, attribute = candidate.about
            assert candidate.answer in {document.sentences[line].values.get(attribute) for line in candidate.evidence}
        right = {}
        for candidate in (item for kind in KINDS[:3] for item in offers[kind]):
            question = candidate.kind, candidate.about, candidate.subject
            assert right.setdefault(question, candidate.answer) == candidate.answer, question
        asked.update({kind: len(items) for kind, items in offers.items()})
    assert all(asked[kind] > 50 for kind in KINDS), asked


def test_two_facts_follow_the_link():
    followed = Counter()
    for document in documents():
        subjects, offers = document.subjects(), candidates(document)["two_facts"]
        for sentence in document.sentences:
            for attribute, value in sentence.values.items():
                target = LINKS.get((sentence.kind, attribute)), value
                if target not in subjects:
                    continue
                phrase = DESCRIPTIONS[sentence.kind, attribute].format(subject=mention(sentence.kind, sentence.subject))
                answers = {c.about[1]: c.answer for c in offers if c.subject == phrase}
                stated: dict[str, str] = {}
                for line in subjects[target]:
                    stated |= document.sentences[line].values
                assert answers == stated, phrase
                followed[sentence.kind, attribute] += 1
    assert set(followed) == set(LINKS)


def test_a_single_sentence_offers_a_question_for_each_value():
    for document in documents(lengths=(1,), number=40):
        offers = candidates(document)
        assert len(offers["one_fact"]) == len(document.sentences[0].values) >= 2
        assert not offers["which_of_several"]
        assert not offers["two_facts"]
        questions = list(sample_questions(random.Random(0), document, {"one_fact": 1}, 10))
        assert len({question["prompt"] for question in questions}) == len(offers["one_fact"]), "no question comes twice"


def test_questions_of_a_long_document_come_from_all_depths():
    document = build_document(random.Random(3), "test", 400)
    questions = list(sample_questions(random.Random(3), document, {"one_fact": 1}, 40))
    assert [question["meta"]["evidence"][0] // 10 for question in questions] == list(range(40))
    mixed = list(sample_questions(random.Random(3), document, ALL_KINDS, 200))
    assert {question["meta"]["kind"] for question in mixed} == set(KINDS[:4]), "a summary of 400 sentences is not short"


def test_options_hold_the_answer_once_at_any_letter():
    train = records("train", [LengthSpec(1, 300, 6), LengthSpec(8, 300, 6)])
    chosen = [record for record in train if record["meta"]["kind"] == "multiple_choice"]
    letters = Counter(record["meta"]["gold"] for record in chosen)
    assert len(chosen) > 200
    assert all(letters[letter] > len(chosen) / 8 for letter in LETTERS), letters
    from_document = 0
    for record in chosen:
        options, gold = record["meta"]["options"], record["meta"]["gold"]
        assert len(set(options)) == 4
        assert options[LETTERS.index(gold)] == record["answer"]
        lines = [f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=True)]
        assert record["prompt"].split("\n")[1:] == lines
        from_document += sum(option in record["context"] for option in options) > 1
    assert from_document > 20


def test_the_summary_counts_the_subjects():
    document = next(d for d in documents() if len(d.sentences) == 8 and len(d.subjects()) < 8)
    answer = candidates(document)["summary"][0].answer
    people = len({sentence.subject for sentence in document.sentences if sentence.kind == "person"})
    assert re.search(rf"\b{people} (person|people)\b", answer)
    assert mention(document.sentences[0].kind, document.sentences[0].subject) in answer
    assert answer.count(".") == 2


def test_answers_stand_in_their_evidence():
    for record in records("validation", [LengthSpec(4, 60, 8)]):
        meta, lines = record["meta"], record["context"].split("\n")
        assert set(record) == {"id", "task", "context", "prompt", "answer", "meta"}
        assert meta["num_sentences"] == len(lines) == 4
        if meta["kind"] != "summary":
            assert any(record["answer"] in lines[number] for number in meta["evidence"])
            assert len(record["answer"].split()) <= 4


def test_a_document_depends_on_nothing_but_its_seed_length_and_number():
    one = records("train", [LengthSpec(4, 5, 4)])
    assert one == records("train", [LengthSpec(2, 3, 4), LengthSpec(4, 9, 4)])[-36:][:20]
    assert one != records("train", [LengthSpec(4, 5, 4)], seed=1)
    assert len({record["id"] for record in one}) == len(one) == 20


def test_closed_book_baseline_counts_by_hand():
    def record(answer: str, **meta) -> dict:
        return {"answer": answer, "meta": {"kind": "one_fact", "attribute": "person.hobby"} | meta}

    choice = {"kind": "multiple_choice", "options": ["w", "x", "y", "z"]}
    train = [record("chess"), record("chess"), record("golf"), record("x", **choice, gold="B")]
    test = [record("chess"), record("golf"), record("golf"), record("golf"), record("x", **choice, gold="B")]
    unseen = record("Rome", attribute="person.birth_city", kind="two_facts")
    expected = {"one_fact": (25.0, 4), "two_facts": (0.0, 1), "multiple_choice": (100.0, 1)}
    assert closed_book_baseline(train, [*test, unseen]) == expected


def test_answers_cannot_be_guessed_without_the_document():
    specs = [LengthSpec(2, 500, 4), LengthSpec(8, 150, 8)]
    baseline = closed_book_baseline(records("train", specs), records("test", specs))
    for kind in ("one_fact", "which_of_several"):
        score, number = baseline[kind]
        assert number > 150
        assert score < 6, (kind, score)
    assert baseline["multiple_choice"][0] < 40


def test_files_are_byte_identical_and_share_no_names(tmp_path, capsys):
    options = ["--train_lengths", "1:30,8:10", "--validation_lengths", "2:5", "--test_lengths", "1:5,32:2:9"]
    for folder in ("a", "b"):
        main(["--output_dir", str(tmp_path / folder), *options])
    names, contexts = {}, {}
    for split in SPLITS:
        content = (tmp_path / "a" / f"{split}.jsonl").read_bytes()
        assert content == (tmp_path / "b" / f"{split}.jsonl").read_bytes()
        rows = list(read_jsonl(tmp_path / "a" / f"{split}.jsonl"))
        contexts[split] = {row["context"] for row in rows}
        people = {f"{f} {n}" for f in demo_vocabulary.FIRST_NAMES for n in demo_vocabulary.LAST_NAMES}
        pairs = set(re.findall(r"(?=\b([A-Z]\w+ [A-Z]\w+)\b)", "\n".join(contexts[split])))
        names[split] = pairs & people
        assert names[split]
    assert [len(contexts[split]) for split in SPLITS] == [40, 5, 7]
    assert not names["train"] & names["test"]
    assert not names["train"] & names["validation"]
    assert sum(row["meta"]["num_sentences"] == 32 for row in rows) == 18
    assert {path.name for path in (tmp_path / "a").iterdir()} == {f"{split}.jsonl" for split in SPLITS}
    printed = capsys.readouterr().out
    assert re.search(r"32 sentences +2 .* 18\n", printed)
    assert re.search(r"one_fact +\d+\.\d % +of", printed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not sentences:documents"),
        ("1", "'1' is not"),
        ("1:2,4:x", "'4:x' is not"),
        ("0:5", "'0:5' is not"),
        ("1:2:3:4", "is not"),
        (f"{max_sentences('test') + 1}:1", "the test split has names for"),
        ("1:2,1:3", "the length 1 is given twice"),
    ],
)
def test_bad_lengths_are_refused(text, message):
    with pytest.raises(UserError, match=f"--test_lengths: .*{message}"):
        parse_lengths(text, "test", 4)


def test_lengths_may_say_how_many_questions():
    assert parse_lengths("1:40, 128:4:32", "test", 5) == [LengthSpec(1, 40, 5), LengthSpec(128, 4, 32)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one_fct:1", "unknown kind 'one_fct'.*Did you mean 'one_fact'"),
        ("one_fact", "no number as its weight"),
        ("one_fact:-1", "at least 0"),
        ("one_fact:nan", "at least 0"),
        ("one_fact:1,one_fact:2", "given twice"),
        ("summary:0", "no kind with a weight above 0"),
    ],
)
def test_bad_kinds_are_refused(text, message):
    with pytest.raises(UserError, match=f"--kinds: .*{message}"):
        parse_kinds(text)


def test_only_the_kinds_asked_for_are_generated():
    specs = [LengthSpec(8, 10, 4)]
    found = list(generate_records("train", specs, parse_kinds("two_facts:1,summary:0"), 0))
    assert {record["meta"]["kind"] for record in found} == {"two_facts"}


@pytest.mark.parametrize("start", [["preprocess/generate_demo_data.py"], ["-m", "preprocess.generate_demo_data"]])
def test_it_runs_as_a_script_and_as_a_module(tmp_path, start):
    short = [item for split in SPLITS for item in (f"--{split}_lengths", "2:3")]
    command = [sys.executable, *start, "--output_dir", str(tmp_path / "demo"), *short]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "demo" / "test.jsonl").read_text().splitlines()[0])["task"] == "demo"
    refused = subprocess.run([*command, "--kinds", "x"], cwd=REPOSITORY, capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --kinds: unknown kind 'x'")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="this is a file"):
        main(["--output_dir", str(tmp_path / "file")])
