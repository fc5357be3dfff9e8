"""TriviaQA, on files in the release's format."""

import json

import pytest

from evaluate.f1_qa import evaluate_triviaqa, read_triviaqa_gold
from preprocess.convert import main
from preprocess.converters.triviaqa import first_tokens
from preprocess.records import parse_record
from utils.common_utils import UserError, read_jsonl

ANSWER = {
    "Value": "Big Ben",
    "Aliases": ["The Clock Tower", "Big Ben"],
    "NormalizedValue": "big ben",
    "NormalizedAliases": ["clock tower", "big ben"],
    "HumanAnswers": ["Elizabeth Tower"],
}


def question(name: str, wiki: tuple[str, ...] = (), web: tuple[str, ...] = (), **changes) -> dict:
    return {
        "QuestionId": name,
        "Question": f"What is {name}? ",
        "Answer": ANSWER,
        "EntityPages": [{"Filename": page, "Title": page} for page in wiki],
        "SearchResults": [{"Filename": page, "Rank": 0} for page in web],
    } | changes


def write_release(folder, domain: str, evidence: dict[str, str], *questions: dict, name: str = "", **changes):
    (folder / "qa").mkdir(parents=True, exist_ok=True)
    release = {"Domain": domain.title(), "VerifiedEval": False, "Version": 1.0, "Data": list(questions)} | changes
    (folder / "qa" / (name or f"{domain}-train.json")).write_text(json.dumps(release))
    for path, text in evidence.items():
        (folder / "evidence" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "evidence" / path).write_text(text)
    return folder


def convert(source, target, *options: str, split: str = "train") -> list[dict]:
    main(["triviaqa", "--input_dir", str(source), "--output_dir", str(target), "--overwrite", *options])
    for line in (target / f"{split}.jsonl").read_bytes().splitlines():
        parse_record(line, accept_unlabelled=split == "test")
    return list(read_jsonl(target / f"{split}.jsonl"))


EVIDENCE = {
    "wikipedia/London.txt": "London is large.\n",
    "wikipedia/Bell.txt": "A bell in the CLOCK TOWER rings.",
    "web/1/1_2.txt": "Nothing here.",
}


def test_wikipedia_has_all_documents_of_a_question_together(tmp_path, capsys):
    source = write_release(tmp_path / "in", "wikipedia", EVIDENCE, question("q1", ("London.txt", "Bell.txt")))
    (record,) = convert(source, tmp_path / "out")
    assert record == {
        "id": "q1",
        "task": "triviaqa",
        "context": "London is large.\n\nA bell in the CLOCK TOWER rings.",
        "prompt": "What is q1?",
        "answer": ["Big Ben", "The Clock Tower", "Elizabeth Tower"],
        "meta": {"question": "q1", "documents": ["London.txt", "Bell.txt"], "answer_in_context": True},
    }
    printed = capsys.readouterr()
    assert "1 records from 1 questions, 2 documents, 1 records with an answer in their context" in printed.out
    assert "1 questions, but 61,888 are published" in printed.err


def test_the_web_has_a_record_a_document_with_the_official_key(tmp_path, capsys):
    source = write_release(tmp_path / "in", "web", EVIDENCE, question("q1", ("Bell.txt",), ("1/1_2.txt",)))
    records = convert(source, tmp_path / "out", "--domain", "web")
    assert [(r["id"], r["context"], r["meta"]["answer_in_context"]) for r in records] == [
        ("q1--Bell.txt", "A bell in the CLOCK TOWER rings.", True),
        ("q1--1/1_2.txt", "Nothing here.", False),
    ]
    assert "1 questions, but 76,496 are published" in capsys.readouterr().err
    gold = read_triviaqa_gold(source / "qa" / "web-train.json")
    scores = evaluate_triviaqa(gold, {record["id"]: record["answer"][0] for record in records})
    assert scores["common"] == scores["denominator"] == 2 and scores["exact_match"] == 100.0


def test_documents_are_cut_one_by_one(tmp_path):
    source = write_release(tmp_path / "in", "wikipedia", EVIDENCE, question("q1", ("London.txt", "Bell.txt")))
    records = convert(source, tmp_path / "out", "--document_tokens", "4")
    assert [(r["id"], r["context"], r["meta"]["answer_in_context"]) for r in records] == [
        ("q1--London.txt", "London is large.", False),
        ("q1--Bell.txt", "A bell in the", False),
    ]
    with pytest.raises(UserError, match="--document_tokens=0: must be at least 1"):
        convert(source, tmp_path / "out", "--document_tokens", "0")


def test_unanswerable_records_are_left_out_of_train_only(tmp_path, capsys):
    questions = (question("q1", ("London.txt",)), question("q2", ("Bell.txt",)))
    source = write_release(tmp_path / "in", "wikipedia", EVIDENCE, *questions)
    write_release(source, "wikipedia", {}, *questions, name="wikipedia-dev.json")
    assert [r["id"] for r in convert(source, tmp_path / "out", "--answerable_only")] == ["q2"]
    assert "dropped: 1 records without an answer in their context" in capsys.readouterr().out
    assert len(list(read_jsonl(tmp_path / "out" / "validation.jsonl"))) == 2


def test_the_verified_set_holds_what_was_verified(tmp_path, capsys):
    page = {"Filename": "London.txt", "DocPartOfVerifiedEval": False}
    questions = (
        question("q1", QuestionPartOfVerifiedEval=False),
        question("q2", QuestionPartOfVerifiedEval=True, EntityPages=[page, {"Filename": "Bell.txt"}]),
    )
    source = write_release(
        tmp_path / "in", "wikipedia", EVIDENCE, *questions, name="verified-wikipedia-dev.json", VerifiedEval=True
    )
    (record,) = convert(source, tmp_path / "out", split="verified")
    assert record["id"] == "q2" and record["meta"]["documents"] == ["Bell.txt"]
    printed = capsys.readouterr()
    assert "dropped: 1 questions that are not verified" in printed.out and not printed.err
    assert convert(source, tmp_path / "chosen", "--splits", "verified", split="verified")


def test_the_test_split_has_no_answers(tmp_path, capsys):
    made = question("q1", ("Bell.txt",))
    del made["Answer"]
    source = write_release(tmp_path / "in", "wikipedia", EVIDENCE, made, name="wikipedia-test-without-answers.json")
    (record,) = convert(source, tmp_path / "out", split="test")
    assert record["answer"] == [] and "answer_in_context" not in record["meta"]
    assert "1 records have no answer" in capsys.readouterr().out


def test_questions_without_evidence_or_text_are_counted(tmp_path, capsys):
    evidence = EVIDENCE | {"wikipedia/Empty.txt": " \n"}
    questions = (question("q1"), question("q2", ("Empty.txt",)), question("q3", ("Empty.txt", "Bell.txt")))
    source = write_release(tmp_path / "in", "wikipedia", evidence, *questions)
    (record,) = convert(source, tmp_path / "out")
    assert record["id"] == "q3" and record["context"].startswith("A bell")
    printed = capsys.readouterr().out
    assert "1 questions without evidence, 2 empty documents, 1 records without text" in printed


def test_foreign_and_missing_files_are_named(tmp_path):
    source = write_release(tmp_path / "in", "wikipedia", EVIDENCE, question("q1", ("Paris.txt",)))
    with pytest.raises(UserError, match=r"evidence/wikipedia/Paris\.txt .*: no such file"):
        convert(source, tmp_path / "out")
    with pytest.raises(UserError, match=r"qa: no file such as web-train\.json"):
        convert(source, tmp_path / "out", "--domain", "web")
    write_release(source, "wikipedia", {}, question("q1", ("Bell.txt",), Answer={"Value": "x"}))
    with pytest.raises(UserError, match=r"wikipedia-train\.json: the key Data\[0\]\.Answer\.Aliases is missing"):
        convert(source, tmp_path / "out")
    (source / "qa" / "wikipedia-train.json").write_text('{"data": []}')
    with pytest.raises(UserError, match="the key Data is missing; a file of TriviaQA's folder qa has it"):
        convert(source, tmp_path / "out")
    (source / "evidence").rename(source / "other")
    with pytest.raises(UserError, match="no folder evidence in it"):
        convert(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "number", "cut"),
    [
        ("One, two.\n\nThree", 3, "One, two"),
        ("One, two.\n\nThree", 4, "One, two."),
        ("One, two.\n\nThree", 5, "One, two.\n\nThree"),
        ("well-known 3.14 1,000 and/or", 2, "well-known 3.14"),
        ("short ", 9, "short "),
        ("", 1, ""),
    ],
)
def test_first_tokens(text, number, cut):
    assert first_tokens(text, number) == cut
