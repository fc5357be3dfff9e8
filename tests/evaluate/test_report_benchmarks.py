"""Needle heatmaps and RULER's table in the report."""

from evaluate.report_benchmarks import needle_section, ruler_section
from evaluate.scoring import score_tasks


def record(number: int, mode: str, meta: dict, right: bool = True) -> dict:
    texts = {"prediction": "red" if right else "blue", "references": ["red"]}
    return {"task": "a|task", "id": str(number), "mode": mode, **texts, "meta": meta}


def test_each_mode_has_its_grid_and_heatmap(tmp_path):
    predictions = [
        record(number, mode, {"length": length, "depth": depth}, right=mode == "model" or depth == 0)
        for mode in ("full", "model")
        for number, (length, depth) in enumerate([(1000, 0), (1000, 50), (2000, 0), (2000, 50)])
    ]
    predictions.append(record(9, "unplaced", {}))
    text = needle_section(tmp_path, predictions, score_tasks(predictions, [{"name": "a|task", "metrics": ["needle"]}]))
    assert text.index("### a|task: model") < text.index("### a|task: full")
    assert text.count("Left out, because meta.length and meta.depth do not give them a place in the table: 1.") == 1
    assert "### a|task: unplaced\n\n\nLeft out" in text
    plots = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert plots == ["needle_01_full.png", "needle_01_model.png"]
    assert all(f"](plots/{name})" in text for name in plots)
    (row,) = [line for line in text.split("### a|task: full")[1].splitlines() if line.startswith("| 1,000")]
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["1,000", "2", "100.0", "0.0", "50.0"]
    other = score_tasks(predictions, [{"name": "a|task", "metrics": ["f1"]}])
    assert needle_section(tmp_path, predictions, other) == ruler_section(predictions, other) == ""


def test_each_mode_has_its_ruler_table():
    predictions = [record(n, "model", {"length": 4096, "ruler_task": "vt"}, right=n > 0) for n in range(4)]
    text = ruler_section(predictions, score_tasks(predictions, [{"name": "a|task", "metrics": ["ruler"]}]))
    (row,) = [line for line in text.splitlines() if line.startswith("| vt")]
    assert row.split("|")[2].strip() == "75.00"


def test_lengths_in_other_units_are_left_out(tmp_path):
    predictions = [record(n, "model", {"length": 1000, "depth": 50}) for n in range(3)]
    predictions.append(record(3, "model", {"length": 1000, "depth": 50, "unit": "words"}))
    text = needle_section(tmp_path, predictions, score_tasks(predictions, [{"name": "a|task", "metrics": ["needle"]}]))
    (row,) = [line for line in text.splitlines() if line.startswith("| 1,000")]
    assert row.split("|")[2].strip() == "3"
    assert "place in the table: 1." in text


def test_predictions_without_a_place_do_not_end_ruler_s_table():
    metas = [{"length": 4096}, {"length": 4096, "ruler_task": "niah_own"}, {}, {"length": [1]}]
    predictions = [record(n, "model", {"ruler_task": "vt"} | meta) for n, meta in enumerate(metas)]
    predictions.append(record(9, "full", {"ruler_task": "vt"}))
    text = ruler_section(predictions, score_tasks(predictions, [{"name": "a|task", "metrics": ["ruler"]}]))
    of_model, of_full = text.split("### a|task: full")
    (row,) = [line for line in of_model.splitlines() if line.startswith("| vt")]
    assert row.split("|")[2].strip() == "100.00"
    assert "meta.ruler_task and meta.length do not give them a place in the table: 3." in of_model
    assert of_full.strip() == (
        "Left out, because meta.ruler_task and meta.length do not give them a place in the table: 1."
    )
