"""The report as a whole: every section, nothing missing when data are, and the same again from its files."""

import json
import shutil
import sys

import pytest

from evaluate import report
from evaluate.report import write_evaluation, write_report
from evaluate.report_sections import shorten
from utils.common_utils import UserError

TASKS = [{"name": "demo", "metrics": ["f1", "exact_match"]}, {"name": "sum/val", "metrics": ["rouge"]}]
RECONSTRUCTION = {
    "loss_true": 3.0,
    "loss_shuffled": 4.25,
    "token_accuracy": 0.5,
    "num_tokens": 640,
    "by_window": [{"window": 2, "loss_true": 2.5, "loss_shuffled": 4.0, "token_accuracy": 0.6, "num_tokens": 320}],
}


def demo_predictions() -> list[dict]:
    rows = []
    for number in range(12):
        for mode in ("model", "closed_book"):
            right = mode == "model" and number % 3
            rows.append(
                {
                    "task": "demo",
                    "id": f"d{number}",
                    "mode": mode,
                    "prompt": f"question {number}",
                    "prediction": "red" if right else "",
                    "references": ["red", "crimson"],
                    "num_chunks": 2 ** (number % 4),
                    "num_chunk_tokens": 2 ** (number % 4),
                    "context_tokens": 100 * 2 ** (number % 4),
                    "meta": {"kind": "needle" if number % 2 else "table"},
                    "truncated": number == 3,
                }
            )
    text = "one two three four"
    plain = {"prompt": "Summarise.", "references": [text], "meta": {}}
    return rows + [{"task": "sum/val", "id": f"s{i}", "mode": "model", "prediction": text, **plain} for i in range(5)]


@pytest.fixture
def run(tmp_path):
    """A run folder with a training log and an evaluation of two tasks; returns the folder of the evaluation."""
    log = [
        {"step": step, "split": split, "objective": "reasoning", "loss": 3.0 - step / 10, "shuffled_loss": 3.5}
        | {"shuffled_gap": 0.75}
        for step in (1, 2)
        for split in ("train", "validation")
    ]
    (tmp_path / "run" / "eval").mkdir(parents=True)
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    eval_dir = tmp_path / "run" / "eval"
    (eval_dir / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in demo_predictions()))
    write_evaluation(
        eval_dir,
        predictions=demo_predictions(),
        tasks=TASKS,
        reconstruction=RECONSTRUCTION,
        training_metrics=tmp_path / "run" / "metrics.jsonl",
        run_info={"checkpoint": "checkpoints/best", "max_new_tokens": 32},
    )
    return eval_dir


def section(text: str, title: str) -> str:
    assert f"\n## {title}\n" in text
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def row(text: str, *starts: str) -> list[str]:
    """Return the cells of the first table row that begins with the given cells."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if cells[: len(starts)] == list(starts):
            return cells[len(starts) :]
    raise AssertionError(f"no row {starts} in\n{text}")


def test_every_section_holds_its_figures(run):
    text = (run / "report.md").read_text()
    assert row(section(text, "Run"), "max_new_tokens") == ["32"]
    summary = section(text, "Summary")
    assert row(summary, "demo", "model", "f1")[0] == "66.7" and row(summary, "demo", "model", "f1")[2] == "12"
    assert row(summary, "demo", "closed_book", "f1")[0] == "0.0"
    assert row(summary, "sum/val", "model", "rouge.geometric_mean")[0] == "100.0"
    kinds = section(text, "Scores by kind")
    assert row(kinds, "needle")[1::2] == ["6", "6"]
    assert "demo: f1" in kinds and "demo: exact_match" in kinds and "sum/val" not in kinds
    chunks = section(text, "Scores by number of chunks")
    # Examples 2, 6 and 10 have four chunks; of these 6 is wrong.
    assert row(chunks, "4")[0].startswith("66.7") and row(chunks, "4")[1] == "3"
    assert "| needle | 2 " in chunks
    reconstruction = section(text, "Reconstruction")
    assert row(reconstruction, "all") == ["3.000", "4.250", "+1.250", "50.0", "640"]
    assert row(reconstruction, "2")[2] == "+1.500"
    assert row(section(text, "Compression"), "demo", "all") == ["12", "375.0", "3.8", "100.0"]
    assert row(section(text, "Training"), "reasoning", "validation") == [
        "2.900",
        "2.800",
        "2.800 (step 2)",
        "3.500",
        "+0.750",
    ]
    generation = section(text, "Generation")
    assert row(generation, "demo", "model")[:3] == ["12", "4", "1"]
    assert row(generation, "sum/val", "model")[:4] == ["5", "0", "–", "0"]
    samples = section(text, "Sample predictions")
    assert samples.count("\nprompt") == 3 * 3
    assert "reference    crimson" in samples and "closed_book  (empty)" in samples


def test_every_picture_of_the_report_exists(run):
    text = (run / "report.md").read_text()
    linked = {part.split(")")[0] for part in text.split("](")[1:]}
    assert linked == {"plots/chunks_01_demo.png", "plots/length_01_demo.png", "plots/training_loss.png"}
    assert {f"plots/{path.name}" for path in (run / "plots").iterdir()} == linked


def test_rebuilt_from_its_files_the_report_is_the_same_even_when_moved(run, monkeypatch, capsys):
    text, metrics = (run / "report.md").read_text(), (run / "metrics.json").read_text()
    moved = run.parent.with_name("moved")
    shutil.move(run.parent, moved)
    (moved / "eval" / "report.md").unlink()
    monkeypatch.setattr(sys, "argv", ["report", "--eval_dir", str(moved / "eval")])
    report.main()
    assert (moved / "eval" / "report.md").read_text() == text
    assert (moved / "eval" / "metrics.json").read_text() == metrics
    assert "report.md" in capsys.readouterr().out


def test_a_report_can_be_written_from_stored_scores(run, tmp_path):
    scores = json.loads((run / "metrics.json").read_text())["scores"]
    path = write_report(
        tmp_path / "again",
        predictions=demo_predictions(),
        metrics=scores,
        tasks=TASKS,
        reconstruction=RECONSTRUCTION,
        training_metrics=run.parent / "metrics.jsonl",
        run_info={"checkpoint": "checkpoints/best", "max_new_tokens": 32},
    )
    assert path.read_text() == (run / "report.md").read_text()
    with pytest.raises(UserError, match="no scores of task 'new'"):
        write_report(
            tmp_path,
            predictions=[],
            metrics=scores,
            tasks=[{"name": "new", "metrics": ["f1"]}],
            reconstruction=None,
            training_metrics=None,
            run_info={},
        )


def bare_report(folder, predictions, tasks=TASKS[:1], training_metrics=None) -> str:
    options = {"reconstruction": None, "training_metrics": training_metrics, "run_info": {}}
    return write_evaluation(folder, predictions=predictions, tasks=tasks, **options).read_text()


def test_a_task_without_predictions_is_shown_as_empty(tmp_path):
    text = bare_report(tmp_path, [])
    assert row(text, "demo")[-1] == "0"
    assert not (tmp_path / "plots").exists()


def test_unlisted_tasks_and_a_missing_training_log_are_reported(tmp_path):
    text = bare_report(tmp_path, demo_predictions(), training_metrics=tmp_path / "none.jsonl")
    assert "do not name them: sum/val (5)" in text
    assert "training log could not be read" in text and "none.jsonl" in text


def test_predictions_that_are_not_asked_for_are_counted_and_not_scored(tmp_path):
    predictions = demo_predictions()[:24]
    task = TASKS[0] | {"modes": ["model"], "ids": [f"d{number}" for number in range(8)]}
    asked = [record for record in predictions if record["mode"] == "model" and record["id"] in task["ids"]]
    assert len(asked) == 8
    note = (
        "Not scored, because this evaluation does not ask for these modes or prompts: demo, closed_book (12); demo, "
        "model (4).\n"
    )
    text = bare_report(tmp_path / "all", predictions, tasks=[task])
    assert text.replace(f"\n{note}", "") == bare_report(tmp_path / "asked", asked) != text
    # The report that is made from these files again leaves out the same.
    (tmp_path / "all/predictions.jsonl").write_text("".join(json.dumps(record) + "\n" for record in predictions))
    assert report.rebuild(tmp_path / "all").read_text() == text


def test_hostile_texts_leave_the_report_whole(tmp_path):
    hostile = "```\n# not a title | \ud83d\x00 " + "word " * 500
    predictions = [{**demo_predictions()[0], "prediction": hostile, "id": "x|y", "meta": {"kind": "a|b"}}]
    text = bare_report(tmp_path, predictions)
    assert "\x00" not in text and "\n# not a title" not in text and text.count("\n```text") == 1
    assert "characters ...]" in text and row(section(text, "Scores by kind"), "a\\|b")[0] == "0.0"


def test_metrics_json_of_another_format_is_refused(tmp_path):
    (tmp_path / "metrics.json").write_text('{"format_version": 7}')
    with pytest.raises(UserError, match="format_version is 7, this program reads 2"):
        report.rebuild(tmp_path)


def test_shorten_keeps_both_ends():
    assert shorten("a  b\nc") == "a b c"
    assert shorten("start " + "x" * 400 + " end", 40).startswith("start xxx")
    assert shorten("start " + "x" * 400 + " end", 40).endswith("xxx end")
