"""The command line that the metric modules share: predictions in, a table and optionally a JSON file out."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from evaluate.aggregate import Metric, score_examples, summarise, summarise_groups
from evaluate.predictions import field_value, group_order, read_predictions, select_tasks
from evaluate.tables import markdown_table, score_text
from utils.common_utils import UserError, atomic_write_text, closest


def build_parser(description: str, metrics: Sequence[Metric], default: str) -> argparse.ArgumentParser:
    """Return the parser of a metric module; `default` names the metrics to use unless `--metrics` is given."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--predictions", type=Path, required=True, help="predictions.jsonl as written by eval.py")
    parser.add_argument(
        "--metrics",
        default=default,
        help=f"metrics, separated by commas, of: {', '.join(m.name for m in metrics)} (default: {default})",
    )
    parser.add_argument("--task", action="append", default=[], help="score this task only; may be repeated")
    parser.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="FIELD",
        help="also score each group with one value of this field, such as meta.kind or num_chunks; may be repeated",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap intervals (default: 0)")
    parser.add_argument("--output", type=Path, help="also write the scores, in percent, to this JSON file")
    parser.set_defaults(available={metric.name: metric for metric in metrics})
    return parser


def choose_metrics(names: Sequence[str], available: dict[str, Metric]) -> list[Metric]:
    """Return the metrics of the given names.

    Raises:
        UserError: a name is not available.
    """
    for name in names:
        if name not in available:
            raise UserError(f"metric {name!r} is not one of {', '.join(available)}.{closest(name, available)}")
    return [available[name] for name in names]


def read_selected(arguments: argparse.Namespace) -> list[dict]:
    """Read the predictions that `--predictions` and `--task` name."""
    return select_tasks(read_predictions(arguments.predictions), arguments.task)


def run_metrics(arguments: argparse.Namespace) -> None:
    """Score each (task, mode) and each group within it, print the table, and write `--output` if it is given."""
    metrics = choose_metrics(arguments.metrics.split(","), arguments.available)
    predictions_by_part: dict[tuple[str, str], list[dict]] = {}
    for record in read_selected(arguments):
        predictions_by_part.setdefault((record["task"], record["mode"]), []).append(record)
    if not predictions_by_part:
        raise UserError(f"{arguments.predictions}: holds no prediction")
    everything = [record for predictions in predictions_by_part.values() for record in predictions]
    for field in arguments.by:
        if all(field_value(record, field) is None for record in everything):
            raise UserError(f"--by {field}: no prediction in {arguments.predictions} has this field")
    results = []
    for (task, mode), predictions in predictions_by_part.items():
        table = score_examples(predictions, metrics)
        groups = []
        if arguments.by:
            values = [tuple(field_value(record, field) for field in arguments.by) for record in predictions]
            by_value = summarise_groups(table, values, arguments.seed)
            groups = [
                {"group": dict(zip(arguments.by, value, strict=True)), **by_value[value]}
                for value in sorted(by_value, key=group_order)
            ]
        overall = summarise(table, range(len(predictions)), arguments.seed)
        results.append({"task": task, "mode": mode, "overall": overall, "groups": groups})
    print(_results_table(results, arguments.by, [label for metric in metrics for label in metric.labels]), end="")
    if arguments.output is not None:
        try:
            atomic_write_text(arguments.output, json.dumps(results, indent=2) + "\n")
        except OSError as error:
            raise UserError(f"--output {arguments.output}: {error.strerror}; name a file that can be written") from None


def _results_table(results: Sequence[dict], fields: Sequence[str], labels: Sequence[str]) -> str:
    rows = []
    for part in results:
        for summary in (part["overall"], *part["groups"]):
            group = summary.get("group")
            values = [group[field] if group else "(all)" for field in fields]
            scores = [score_text(summary["scores"][label]) for label in labels]
            rows.append([part["task"], part["mode"], *values, summary["n"], *scores])
    header = ["task", "mode", *fields, "n", *labels]
    return markdown_table(header, rows, right=range(2 + len(fields), len(header)))
