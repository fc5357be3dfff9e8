"""QuALITY, on files in the release's format."""

import json

import pytest

from evaluate.scoring import score_predictions
from preprocess.convert import main
from preprocess.records import parse_record
from utils.common_utils import UserError, read_jsonl


def question(number: int, gold: int | None, difficult: int = 0) -> dict:
    made = {
        "question": f" Why {number}? ",
        "question_unique_id": f"52845_SET_{number}",
        "options": ["red ", "green", "blue", "A fish"],
    }
    return made if gold is None else made | {"gold_label": gold, "writer_label": 1, "difficult": difficult}


def line(*questions: dict, article: str = "52845", text: str = "Once.\nTwice.") -> dict:
    return {"article_id": article, "set_unique_id": f"{article}_SET", "article": text, "questions": list(questions)}


def write(folder, name: str, *lines: dict) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"QuALITY.v1.0.1.{name}").write_text("".join(json.dumps(each) + "\n" for each in lines))


def convert(source, target, *options: str, split: str = "train") -> list[dict]:
    main(["quality", "--input_dir", str(source), "--output_dir", str(target), "--overwrite", *options])
    for each in (target / f"{split}.jsonl").read_bytes().splitlines():
        parse_record(each, accept_unlabelled=split == "test")
    return list(read_jsonl(target / f"{split}.jsonl"))


def test_one_record_a_question_with_lettered_options(tmp_path, capsys):
    write(tmp_path / "in", "htmlstripped.train", line(question(1, 4, 1), question(2, 1)), line(question(3, 2)))
    records = convert(tmp_path / "in", tmp_path / "out")
    assert records[0] == {
        "id": "52845_SET_1",
        "task": "quality",
        "context": "Once.\nTwice.",
        "prompt": "Why 1?\n(A) red\n(B) green\n(C) blue\n(D) A fish",
        "answer": "A fish",
        "meta": {"article": "52845", "options": ["red", "green", "blue", "A fish"], "gold": "D", "difficult": 1},
    }
    printed = capsys.readouterr()
    assert "3 records from 1 articles, 3 questions, 1 hard questions" in printed.out
    assert "3 questions, but 2,523 are published" in printed.err
    letters = convert(tmp_path / "in", tmp_path / "letters", "--answer", "letter")
    assert [record["answer"] for record in letters] == ["D", "A", "B"]


@pytest.mark.parametrize("form", ["text", "letter"])
def test_the_meta_scores_answers_by_letter_and_by_text(tmp_path, form):
    write(tmp_path / "in", "htmlstripped.dev", line(question(1, 4, 1), question(2, 1)))
    records = convert(tmp_path / "in", tmp_path / "out", "--answer", form, split="validation")
    predictions = [
        {
            "task": "quality",
            "id": record["id"],
            "mode": "model",
            "prediction": prediction,
            "references": [record["answer"]],
            "meta": record["meta"],
        }
        for record, prediction in zip(records, ["a fish", "A"], strict=True)
    ]
    scores = score_predictions(predictions, ["accuracy"])["overall"]["scores"]
    assert scores["accuracy"]["value"] == scores["accuracy.hard"]["value"] == 100.0
    assert scores["accuracy.hard"]["n"] == 1


def test_the_test_split_has_no_labels(tmp_path, capsys):
    write(tmp_path / "in", "htmlstripped.test", line(question(1, None)))
    (record,) = convert(tmp_path / "in", tmp_path / "out", split="test")
    assert record["answer"] == [] and "gold" not in record["meta"] and "difficult" not in record["meta"]
    assert "1 records have no answer" in capsys.readouterr().out
    write(tmp_path / "in", "htmlstripped.dev", line(question(1, None)))
    with pytest.raises(UserError, match=r"questions\[0\].gold_label is missing; only the test split"):
        convert(tmp_path / "in", tmp_path / "out")


def test_html_is_stripped_only_where_the_release_has_not_done_it(tmp_path):
    html = "<p>One &amp; <i>two</i></p><p>three</p>"
    write(tmp_path / "in", "train", line(question(1, 1), text=html))
    assert convert(tmp_path / "in", tmp_path / "out")[0]["context"] == "One & two\n\nthree"
    write(tmp_path / "in", "htmlstripped.train", line(question(1, 1), text="a <p> b"))
    assert convert(tmp_path / "in", tmp_path / "out")[0]["context"] == "a <p> b"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"article": "a"}, 'row 1: holds "article"; QuALITY has article and questions'),
        (line(question(1, 5)), r"questions\[0\].gold_label is 5, expected 1 to 4"),
        (line(question(1, 0)), "gold_label is 0"),
        (line(question(1, 1) | {"options": "abc"}), r"questions\[0\].options is of type str, expected list"),
        (line({"question": "q", "options": ["a", "b"], "gold_label": 1}), r"questions\[0\].difficult is missing"),
    ],
)
def test_foreign_lines_are_named(tmp_path, changed, message):
    write(tmp_path / "in", "htmlstripped.train", changed)
    with pytest.raises(UserError, match=message):
        convert(tmp_path / "in", tmp_path / "out")


def test_versions_are_not_mixed(tmp_path):
    write(tmp_path / "in", "htmlstripped.train", line(question(1, 1)))
    (tmp_path / "in" / "QuALITY.v0.9.dev").write_text("")
    with pytest.raises(UserError, match=r"holds QuALITY v0.9, v1.0.1; put one version in it"):
        convert(tmp_path / "in", tmp_path / "out")
