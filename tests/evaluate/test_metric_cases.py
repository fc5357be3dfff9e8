"""Figures of published scorers: `METRIC_CASES=metric_cases.json pytest tests/evaluate/test_metric_cases.py`.

The file is a list of objects with `metric`, `prediction` (or `predictions`), `references` and `expected`; it is not
part of the project. What each scorer is known for is tested without it beside each metric.
"""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from evaluate.em_quality import exact_match, substring_exact_match
from evaluate.f1_qa import (
    cepe_f1,
    evaluate_triviaqa,
    read_triviaqa_gold,
    token_f1,
    triviaqa_exact_match,
    triviaqa_f1,
)
from evaluate.longbench_v2 import COLUMNS, extract_answer
from evaluate.rouge_longbench import longbench_rouge_l, rouge_package_scores
from evaluate.rouge_sum import best_rouge, rouge_scores
from evaluate.ruler_metric import postprocess, string_match_all, string_match_part
from evaluate.scoring import score_predictions
from evaluate.text_normalization import normalize_squad, normalize_triviaqa
from preprocess.converters.longbench_v2 import item_prompt
from utils.common_utils import read_text

CASES = os.environ.get("METRIC_CASES")
REPOSITORY = Path(__file__).resolve().parents[2]


def rouge_score_keys(case: dict, use_stemmer: bool) -> dict:
    best = best_rouge(case["prediction"], case["references"], use_stemmer=use_stemmer)
    return {key: {"p": s.precision, "r": s.recall, "f": s.fmeasure} for key, s in best.items()}


def record(number: int, prediction: str, references: list[str], **meta) -> dict:
    texts = {"prediction": prediction, "references": references}
    return {"task": "t", "id": str(number), "mode": "model", **texts, "meta": meta}


def overall_values(records: list[dict], metric: str) -> dict[str, float]:
    scores = score_predictions(records, [metric])["overall"]["scores"]
    return {label.removeprefix(f"{metric}."): score["value"] for label, score in scores.items()}


def scrolls_rouge(case: dict) -> dict:
    predictions = case["predictions"] if "predictions" in case else [case["prediction"]]
    references = case["references_list"] if "predictions" in case else [case["references"]]
    records = [record(number, *pair) for number, pair in enumerate(zip(predictions, references, strict=True))]
    values = overall_values(records, "rouge")
    # The metric cuts summaries into sentences before rougeLsum; SCROLLS takes their lines.
    lines = [rouge_scores(p, r)["rougeLsum"] for p, r in zip(predictions, references, strict=True)]
    return values | {"rougeLsum": 100 * sum(lines) / len(lines)}


def longbench_v2_prompt(case: dict) -> str:
    template = read_text(REPOSITORY / "prompts" / "longbench_v2.txt").rstrip("\n")
    item = case["item"]
    return template.replace("{context}", item["context"].strip()).replace("{prompt}", item_prompt(item))


def longbench_v2_table(case: dict) -> dict:
    records = []
    for number, row in enumerate(case["rows"]):
        prediction = "" if row["pred"] is None else f"The correct answer is ({row['pred']})"
        records.append(record(number, prediction, [row["answer"]], difficulty=row["difficulty"], length=row["length"]))
    values = overall_values(records, "longbench_v2")
    table = {name: values["longbench_v2" if name == "Overall" else name.lower()] for name in COLUMNS}
    return {"Model": case["expected"]["Model"]} | {name: str(round(value, 1)) for name, value in table.items()}


def triviaqa_release(case: dict) -> dict:
    release = Path(CASES).parent / "triviaqa" / "triviaqa_sample.json"
    return evaluate_triviaqa(read_triviaqa_gold(release), case["predictions"])


def on_pair(function):
    return lambda case: function(case["prediction"], case["references"])


def on_text(function):
    return lambda case: function(case["prediction"])


SCORERS = {
    "cepe.f1": on_pair(cepe_f1),
    "cepe.rougeL": lambda case: rouge_scores(case["prediction"], case["references"], use_stemmer=True)["rougeL"],
    "cepe.substring_em": on_pair(substring_exact_match),
    "longbench_v1.normalize_answer": on_text(normalize_squad),
    "longbench_v1.qa_f1": on_pair(token_f1),
    "longbench_v1.rouge_l": on_pair(longbench_rouge_l),
    "longbench_v2.extract_answer": on_text(extract_answer),
    "longbench_v2.prompt_0shot": longbench_v2_prompt,
    "longbench_v2.result_table": longbench_v2_table,
    "rouge_pkg.all": lambda case: rouge_package_scores(case["prediction"], case["references"][0]),
    "rouge_score.nostem": lambda case: rouge_score_keys(case, use_stemmer=False),
    "rouge_score.stem": lambda case: rouge_score_keys(case, use_stemmer=True),
    "ruler.postprocess_pred": on_text(postprocess),
    "ruler.string_match_all": lambda case: round(100 * string_match_all(case["prediction"], case["references"]), 2),
    "ruler.string_match_part": lambda case: round(100 * string_match_part(case["prediction"], case["references"]), 2),
    "scrolls.f1": lambda case: 100 * token_f1(case["prediction"], case["references"]),
    "scrolls.rouge": scrolls_rouge,
    "squad.em": on_pair(exact_match),
    "triviaqa.em": on_pair(triviaqa_exact_match),
    "triviaqa.evaluate": triviaqa_release,
    "triviaqa.f1": on_pair(triviaqa_f1),
    "triviaqa.normalize_answer": on_text(normalize_triviaqa),
}


def flat(value: object, key: str = "") -> dict:
    if isinstance(value, dict):
        return {k: v for name, inner in value.items() for k, v in flat(inner, f"{key}.{name}").items()}
    return {key: value}


@pytest.mark.skipif(CASES is None, reason="METRIC_CASES names no file of cases")
def test_every_case_is_reproduced():
    cases = json.loads(read_text(Path(CASES)))
    assert cases
    counts, wrong = Counter(), []
    for case in cases:
        counts[case["metric"]] += 1
        found, expected = flat(SCORERS[case["metric"]](case)), flat(case["expected"])
        same = found.keys() == expected.keys() and all(
            abs(found[key] - value) <= 1e-6 if isinstance(value, float) else found[key] == value
            for key, value in expected.items()
        )
        if not same:
            wrong.append((case["id"], found, expected))
    print(f"{counts.total()} cases of {len(counts)} scorers")
    assert not wrong, wrong
