"""Where answers look: masses, looks and chances, against figures worked out by hand."""

import numpy as np
import pytest

from evaluate.attention_focus import summarise_attention


def answer(attention, evidence, right: bool) -> dict:
    return {"attention_LAC": np.array(attention, dtype=np.float32), "evidence": evidence, "right": right}


ANSWERS = [
    # Two layers of two heads; the second head of layer 1 finds chunk 1 of three.
    answer([[[0.2, 0.1, 0.1], [0.2, 0.1, 0.3]], [[0.4, 0.1, 0.1], [0.1, 0.5, 0.2]]], (1,), True),
    # Four chunks, of which 0 and 3 are evidence.
    answer([[[0.0, 0.4, 0.0, 0.2], [0.0, 0.2, 0.1, 0.1]], [[0.3, 0.1, 0, 0], [0.0, 0.2, 0.1, 0.4]]], (0, 3), False),
]


def test_figures():
    figures = summarise_attention(ANSWERS)
    assert figures["n"] == 2
    assert figures["chance"] == pytest.approx((1 / 3 + 2 / 4) / 2)
    first, last = figures["by_layer"]
    assert first["evidence_mass"] == pytest.approx((0.1 + 0.15) / 2)
    assert first["other_mass"] == pytest.approx((0.4 + 0.35) / 2)
    assert first["looks"] == 0.0
    # Over both heads of layer 1: chunk 1 of the first has 0.3 against 0.25 and 0.15; chunk 3 of the second the most.
    assert last["looks"] == 1.0
    assert figures["heads"] == [[0.0, 0.0], [0.5, 1.0]]
    best = figures["best_head"]
    assert (best["layer"], best["head"], best["looks"]) == (1, 1, 1.0)
    assert [(row["chunks"], row["n"], row["looks"]) for row in best["by_chunks"]] == [(3, 1, 1.0), (4, 1, 1.0)]
    assert [row["chance"] for row in best["by_chunks"]] == pytest.approx([1 / 3, 1 / 2])
    assert best["by_answer"] == [{"right": False, "n": 1, "looks": 1.0}, {"right": True, "n": 1, "looks": 1.0}]
