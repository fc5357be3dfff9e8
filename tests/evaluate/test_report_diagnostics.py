"""The report's section on how the model reads, from what was measured to text and plots."""

import json

from evaluate.report_diagnostics import diagnostics_section, summarise_diagnostics
from tests.evaluate.test_attention_focus import ANSWERS

CHUNK = {
    "text": "in Rome 12",
    "token_spans": [(0, 2), (2, 7), (7, 10), (10, 10)],
    "losses": [1.0, 2.0, 0.5, 0.0],
    "correct": [True, False, True, True],
    "losses_shuffled": [2.0, 5.0, 3.0, 0.0],
    "correct_shuffled": [True, False, False, True],
}


def test_figures_become_tables_and_plots(tmp_path):
    figures = summarise_diagnostics([CHUNK], {"towns": ANSWERS, "other": "no prompt says so"})
    text = diagnostics_section(tmp_path, json.loads(json.dumps(figures)))
    assert "| name       |   1 |       0.0 |                 0.0 | 2.000 |          5.000 |" in text
    assert "layer 1, head 1, 100.0 %" in text
    assert "a random chunk would in 41.7 %" in text
    assert "### other: where an answer looks\n\nNot measured: no prompt says so." in text
    plots = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert plots == ["attention_01_heads.png", "attention_01_layers.png", "recovery.png"]
    assert all(f"(plots/{name})" in text for name in plots)
    assert all((tmp_path / "plots" / name).stat().st_size > 5000 for name in plots)


def test_nothing_asked_for_is_no_section(tmp_path):
    assert summarise_diagnostics([], {}) is None
    assert diagnostics_section(tmp_path, None) == ""
