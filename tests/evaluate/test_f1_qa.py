"""Token F1 in its three published forms, and TriviaQA's evaluation over a release file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evaluate import f1_qa
from evaluate.em_quality import exact_match
from evaluate.f1_qa import (
    cepe_f1,
    evaluate_triviaqa,
    first_line_f1,
    read_triviaqa_gold,
    token_f1,
    triviaqa_exact_match,
    triviaqa_f1,
)
from utils.common_utils import UserError

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "prediction, references, expected",
    [
        ("The red fox", ["red fox"], 1.0),
        ("a red fox ran", ["the red dog"], 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2)),
        # Counts are clipped: "go go go" shares one word with "go".
        ("go go go", ["go"], 0.5),
        ("red", ["blue", "red wine", "red"], 1.0),
        ("", ["red"], 0.0),
        ("red", [""], 0.0),
        ("well-known", ["well known"], 0.0),
        ("naïve", ["naive"], 0.0),
        ("yes it is", ["yes"], 0.5),
    ],
)
def test_token_f1(prediction, references, expected):
    assert token_f1(prediction, references) == pytest.approx(expected)


@pytest.mark.parametrize("prediction, reference", [("", ""), ("The", "an"), ("!", "?")])
def test_texts_that_normalise_to_nothing_match_but_have_no_f1(prediction, reference):
    assert token_f1(prediction, [reference]) == 0.0
    assert triviaqa_f1(prediction, [reference]) == 0.0
    assert exact_match(prediction, [reference]) == 1.0
    assert triviaqa_exact_match(prediction, [reference]) == 1.0


@pytest.mark.parametrize("score", [token_f1, first_line_f1, cepe_f1, triviaqa_f1, triviaqa_exact_match, exact_match])
def test_no_reference_is_an_error(score):
    with pytest.raises(UserError, match="no reference"):
        score("red", [])


def test_cepe_counts_yes_and_no_only_as_the_whole_answer():
    assert cepe_f1("yes it is", ["yes"]) == 0.0
    assert cepe_f1("Yes.", ["yes"]) == 1.0
    assert cepe_f1("no", ["no one"]) == 0.0
    assert cepe_f1("nobody is here", ["nobody"]) == token_f1("nobody is here", ["nobody"]) == 0.5
    assert cepe_f1("yes it is", ["no", "it is"]) == pytest.approx(0.8)


def test_only_the_first_line_counts_for_longbench_triviaqa():
    run_on = "\n\nBig Ben\nPassage: another\nQuestion: and so on"
    assert first_line_f1(run_on, ["Big Ben"]) == 1.0
    assert token_f1(run_on, ["Big Ben"]) < 0.5
    # Line ends are passed over at the beginning, spaces are not: the line of the space is the first.
    assert first_line_f1(" \nBig Ben", ["Big Ben"]) == 0.0


def test_triviaqa_turns_punctuation_into_spaces():
    assert triviaqa_f1("well-known", ["well known"]) == 1.0
    assert triviaqa_exact_match("well-known", ["Well Known"]) == 1.0
    assert exact_match("well-known", ["Well Known"]) == 0.0
    assert exact_match("U.S.A.", ["USA"]) == 1.0
    assert triviaqa_exact_match("U.S.A.", ["USA"]) == 0.0


def release(domain: str) -> dict:
    return {
        "Domain": domain,
        "Data": [
            {
                "QuestionId": "q1",
                "Answer": {
                    "Aliases": ["Big Ben"],
                    "NormalizedAliases": ["big ben"],
                    "HumanAnswers": ["The Clock-Tower"],
                },
                "EntityPages": [{"Filename": "Ben.txt"}],
                "SearchResults": [{"Filename": "1/1_2.txt"}],
            },
            {"QuestionId": "q2", "Answer": {"NormalizedAliases": ["thames"]}, "EntityPages": [{"Filename": "T.txt"}]},
        ],
    }


def test_triviaqa_gold_is_keyed_as_in_the_release(tmp_path):
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(release("Wikipedia")))
    assert read_triviaqa_gold(path) == {"q1": ["big ben", "clock tower"], "q2": ["thames"]}
    path.write_text(json.dumps(release("Web")))
    assert set(read_triviaqa_gold(path)) == {"q1--Ben.txt", "q1--1/1_2.txt", "q2--T.txt"}
    path.write_text('{"Domain": "Web", "Data": [{"QuestionId": "q1"}]}')
    with pytest.raises(UserError, match="dev.json.*Answer"):
        read_triviaqa_gold(path)


def test_triviaqa_evaluation_counts_a_missing_prediction_as_wrong():
    gold = {"q1": ["big ben"], "q2": ["thames"], "q3": ["london eye"], "q4": ["soho"]}
    scores = evaluate_triviaqa(gold, {"q1": "Big Ben", "q3": "the eye", "other": "x"})
    assert scores["exact_match"] == 25.0
    assert scores["f1"] == pytest.approx(100 * (1 + 2 / 3) / 4)
    assert (scores["common"], scores["denominator"], scores["pred_len"]) == (2, 4, 3)
    assert evaluate_triviaqa({}, {"q1": "x"})["f1"] == 0.0


def write_predictions(path: Path) -> None:
    rows = [("q1", "Big Ben", "needle"), ("q2", "the Thames river", "fact"), ("q3", "Soho", "fact")]
    references = {"q1": ["big ben"], "q2": ["thames"], "q3": ["london eye"]}
    with open(path, "w") as file:
        for name, prediction, kind in rows:
            record = {"task": "trivia", "id": name, "mode": "model", "prediction": prediction, "meta": {"kind": kind}}
            file.write(json.dumps({**record, "references": references[name]}) + "\n")


@pytest.mark.parametrize("how", [["-m", "evaluate.f1_qa"], ["evaluate/f1_qa.py"]])
def test_command_line_prints_a_table_and_writes_json(tmp_path, how):
    write_predictions(tmp_path / "p.jsonl")
    command = [sys.executable, *how, "--predictions", tmp_path / "p.jsonl", "--by", "meta.kind"]
    run = subprocess.run([*command, "--output", tmp_path / "m.json"], cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "meta.kind" in run.stdout and "(all)" in run.stdout
    (part,) = json.loads((tmp_path / "m.json").read_text())
    assert part["overall"]["scores"]["f1"]["value"] == pytest.approx(100 * (1 + 2 / 3) / 3)
    assert part["overall"]["scores"]["exact_match"]["value"] == pytest.approx(100 / 3)
    assert [group["group"] for group in part["groups"]] == [{"meta.kind": "fact"}, {"meta.kind": "needle"}]
    assert part["groups"][0]["n"] == 2


def test_command_line_scores_against_a_release_file(tmp_path, monkeypatch, capsys):
    write_predictions(tmp_path / "p.jsonl")
    (tmp_path / "dev.json").write_text(json.dumps(release("Wikipedia")))
    arguments = ["--predictions", "p.jsonl", "--triviaqa_gold", "dev.json", "--output", "out.json"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["f1_qa", *arguments])
    f1_qa.main()
    (scores,) = json.loads((tmp_path / "out.json").read_text())
    assert scores["exact_match"] == 50.0 and scores["common"] == 2
    assert json.loads(capsys.readouterr().out) == [scores]


@pytest.mark.parametrize(
    "extra, message",
    [
        (["--metrics", "f2"], "'f2' is not one of .*f1"),
        (["--task", "trivai"], "Did you mean 'trivia'"),
        (["--by", "meta"], "cannot group by 'meta'"),
    ],
)
def test_command_line_errors_name_the_way_out(tmp_path, monkeypatch, extra, message):
    write_predictions(tmp_path / "p.jsonl")
    monkeypatch.setattr(sys, "argv", ["f1_qa", "--predictions", str(tmp_path / "p.jsonl"), *extra])
    with pytest.raises(UserError, match=message):
        f1_qa.main()
