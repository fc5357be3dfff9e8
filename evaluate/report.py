"""The evaluation report: `report.md` with its plots, and the `metrics.json` from which it can be written again.

    python -m evaluate.report --eval_dir outputs/demo/eval

scores the `predictions.jsonl` of that folder again and rewrites `metrics.json`, `report.md` and `plots/`; tasks, run
information, reconstruction losses and the place of the training log are taken from the `metrics.json` there.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from evaluate import report_sections as sections
from evaluate.plots import plot_score_by_chunks, plot_score_by_length, plot_training_curves
from evaluate.predictions import read_predictions, split_asked
from evaluate.report_benchmarks import needle_section, ruler_section
from evaluate.report_comparison import comparison_section, published_section
from evaluate.report_diagnostics import diagnostics_section
from evaluate.scoring import score_tasks
from evaluate.training_log import read_training_curves
from utils.common_utils import UserError, atomic_write_text, read_json, run_cli

FORMAT_VERSION = 2


def write_evaluation(
    output_dir: Path,
    *,
    predictions: list[dict],
    tasks: Sequence[dict],
    reconstruction: dict | None,
    training_metrics: Path | None,
    run_info: dict,
    diagnostics: dict | None = None,
) -> Path:
    """Score the predictions that the tasks ask for, write `metrics.json` and the report into `output_dir`, and return
    the report's path.

    Arguments and errors as for `write_report` and `evaluate.scoring.score_tasks`.
    """
    output_dir = Path(output_dir)
    scores = score_tasks(split_asked(predictions, tasks)[0], tasks)
    document = {
        "format_version": FORMAT_VERSION,
        "tasks": list(tasks),
        "scores": scores,
        "reconstruction": reconstruction,
        "diagnostics": diagnostics,
        # Relative, so that a run's folder can be moved as a whole.
        "training_metrics": None if training_metrics is None else os.path.relpath(training_metrics, output_dir),
        "run_info": run_info,
    }
    atomic_write_text(output_dir / "metrics.json", json.dumps(document, indent=2) + "\n")
    return write_report(
        output_dir,
        predictions=predictions,
        metrics=scores,
        tasks=tasks,
        reconstruction=reconstruction,
        training_metrics=training_metrics,
        run_info=run_info,
        diagnostics=diagnostics,
    )


def write_report(
    output_dir: Path,
    *,
    predictions: list[dict],
    metrics: dict,
    tasks: Sequence[dict],
    reconstruction: dict | None,
    training_metrics: Path | None,
    run_info: dict,
    diagnostics: dict | None = None,
) -> Path:
    """Write `report.md` and `plots/*.png` into `output_dir` and return the path of the report.

    Args:
        predictions: records of `predictions.jsonl`.
        metrics: the scores of the tasks, as `evaluate.scoring.score_tasks` returns them.
        tasks: `{"name": str, "metrics": [str, ...]}` each, optionally with "published", a benchmark of
            `evaluate.published`, and "modes" and "ids", the predictions asked for where it is not all of the task;
            they give the order of the report.
        reconstruction: `{"loss_true", "loss_shuffled"` (nats a token)`, "token_accuracy"` (0 to 1)`, "num_tokens"}`,
            optionally with `"by_window"`, a list of the same with `"window"` (chunks restated).
        training_metrics: the training run's `metrics.jsonl`.
        run_info: what to print at the top: checkpoint, versions, options.
        diagnostics: as `evaluate.report_diagnostics.summarise_diagnostics` returns them.

    Raises:
        UserError: `metrics` lacks a task.
    """
    output_dir = Path(output_dir)
    missing = [task["name"] for task in tasks if task["name"] not in metrics]
    if missing:
        raise UserError(f"no scores of task {missing[0]!r}; run `python -m evaluate.report --eval_dir {output_dir}`")
    scores = {task["name"]: metrics[task["name"]] for task in tasks}
    predictions_of_tasks, others = split_asked(predictions, tasks)
    parts = [
        "# Evaluation report\n",
        sections.run_section(run_info),
        sections.summary_section(scores),
        _not_asked_note(others, scores),
        sections.kinds_section(scores),
        _chunks_part(output_dir, scores),
        comparison_section(predictions_of_tasks, scores),
        _length_plots(output_dir, scores),
        needle_section(output_dir, predictions_of_tasks, scores),
        ruler_section(predictions_of_tasks, scores),
        published_section(predictions_of_tasks, scores, tasks),
        sections.reconstruction_section(reconstruction),
        diagnostics_section(output_dir, diagnostics),
        sections.compression_section(predictions_of_tasks),
        _training_part(output_dir, training_metrics),
        sections.generation_section(predictions_of_tasks),
        sections.samples_section(predictions_of_tasks),
    ]
    # A generated text may hold half a surrogate pair, which UTF-8 cannot hold.
    text = "\n".join(part for part in parts if part).encode("utf-8", "replace").decode("utf-8")
    path = output_dir / "report.md"
    atomic_write_text(path, text)
    return path


def _not_asked_note(others: Sequence[dict], scores: dict) -> str:
    unlisted = Counter(record["task"] for record in others if record["task"] not in scores)
    not_asked = Counter(f"{record['task']}, {record['mode']}" for record in others if record["task"] in scores)
    reasons = (
        (unlisted, "the tasks of this evaluation do not name them"),
        (not_asked, "this evaluation does not ask for these modes or prompts"),
    )
    return "\n".join(
        f"Not scored, because {reason}: " + "; ".join(f"{name} ({n})" for name, n in sorted(counts.items())) + ".\n"
        for counts, reason in reasons
        if counts
    )


def _chunks_part(output_dir: Path, scores: dict) -> str:
    texts = []
    for number, (task, views) in enumerate(scores.items(), start=1):
        groups = views["by_kind_chunks"] or views["by_chunks"]
        plot = None
        label = views["primary"]
        buckets = {tuple(g["group"]["chunks"]) for g in groups if _can_be_drawn(g, label)}
        if len(buckets) > 1:
            plot = _plot_name("chunks", number, task)
            plot_score_by_chunks(output_dir / plot, groups, label, f"{task}: score by context length")
        texts.append(sections.chunks_section(task, views, plot))
    texts = [text for text in texts if text]
    return "## Scores by number of chunks\n\n" + "\n".join(texts) if texts else ""


def _length_plots(output_dir: Path, scores: dict) -> str:
    """Draw score and costs by length where several modes were measured at several lengths."""
    texts = []
    for number, (task, views) in enumerate(scores.items(), start=1):
        label = views["primary"]
        groups = [g for g in views["by_length"] if g["group"]["length"] and g["scores"][label]["value"] is not None]
        lengths = {tuple(g["group"]["length"]) for g in groups}
        if len(lengths) > 1 and len({g["group"]["mode"] for g in groups}) > 1:
            plot = _plot_name("length", number, task)
            plot_score_by_length(output_dir / plot, groups, label, f"{task}: score by tokens of the context")
            texts.append(f"![{label} of {task} by the tokens of the context]({plot})\n")
    return "\n".join(texts)


def _plot_name(kind: str, number: int, task: str) -> str:
    # Numbered, because two names may differ only in characters that a file name cannot have.
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in task)
    return f"plots/{kind}_{number:02d}_{name}.png"


def _can_be_drawn(group: dict, label: str) -> bool:
    return group["group"]["chunks"] is not None and group["scores"][label]["value"] is not None


def _training_part(output_dir: Path, training_metrics: Path | None) -> str:
    if training_metrics is None:
        return ""
    try:
        curves = read_training_curves(training_metrics)
    except UserError as error:
        # A torn or missing training log must not cost the report of an evaluation.
        return f"## Training\n\nThe training log could not be read: {error}\n"
    if not curves:
        return f"## Training\n\nThe training log {training_metrics} holds no loss.\n"
    plot = "plots/training_loss.png"
    plot_training_curves(output_dir / plot, curves)
    return sections.training_section(curves, plot)


def rebuild(eval_dir: Path) -> Path:
    """Score the predictions in `eval_dir` again and rewrite `metrics.json` and the report.

    Raises:
        UserError: a file is missing, malformed, or of another format version.
    """
    document = read_json(eval_dir / "metrics.json")
    version = document.get("format_version") if isinstance(document, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(
            f"{eval_dir / 'metrics.json'}: format_version is {version!r}, this program reads {FORMAT_VERSION}; run"
            " eval.py again (finished predictions are kept)"
        )
    log = document["training_metrics"]
    return write_evaluation(
        eval_dir,
        predictions=read_predictions(eval_dir / "predictions.jsonl"),
        tasks=document["tasks"],
        reconstruction=document["reconstruction"],
        training_metrics=None if log is None else Path(os.path.normpath(eval_dir / log)),
        run_info=document["run_info"],
        diagnostics=document.get("diagnostics"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--eval_dir",
        type=Path,
        required=True,
        help="folder with predictions.jsonl and metrics.json, written by eval.py",
    )
    print(f"wrote {rebuild(parser.parse_args().eval_dir)}")


if __name__ == "__main__":
    run_cli(main)
