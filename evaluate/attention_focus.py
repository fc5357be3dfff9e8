"""Where the decoder looks while it answers: at the chunks that hold the answer, or at others.

Pure functions on the attention that `pefts.diagnostics` gets from the model. Shape suffixes: L layers, A heads,
C chunks of a context, N answers.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np


def summarise_attention(answers: Sequence[Mapping]) -> dict:
    """Average over answers about contexts of more chunks than their evidence.

    An answer *looks at its evidence* where, of all chunks, one of the evidence gets the most attention.

    Args:
        answers: at least one `{"attention_LAC", "evidence", "right"}`: the attention that the positions predicting the
            answer pay to the chunk tokens of each chunk, their mean (what is missing to 1 went to the prompt and the
            answer itself); the chunks that hold the answer; whether each token of the answer was predicted, given those
            before it.

    Returns:
        `{"n", "chance", "by_layer": [{"layer", "evidence_mass", "other_mass", "looks"}], "heads": [L][A] shares of
        answers that look, "best_head": {"layer", "head", "looks", "by_chunks": [{"chunks", "n", "looks", "chance"}],
        "by_answer": [{"right", "n", "looks"}]}}`; all shares from 0 to 1. Masses are means over heads, and `looks` of a
        layer is that of the mean over its heads. `chance` is the share that a look at a random chunk would reach. The
        best head is chosen on the same answers.
    """
    masses_NL2 = np.stack([_masses(answer) for answer in answers])
    looks_NL = np.stack([_looks(answer["attention_LAC"].mean(1), answer["evidence"]) for answer in answers])
    looks_NLA = np.stack([_looks(answer["attention_LAC"], answer["evidence"]) for answer in answers])
    heads_LA = looks_NLA.mean(0)
    layer, head = (int(index) for index in np.unravel_index(heads_LA.argmax(), heads_LA.shape))
    chances = [len(answer["evidence"]) / answer["attention_LAC"].shape[-1] for answer in answers]
    return {
        "n": len(answers),
        "chance": float(np.mean(chances)),
        "by_layer": [
            {"layer": index, "evidence_mass": float(evidence), "other_mass": float(other), "looks": float(looks)}
            for index, ((evidence, other), looks) in enumerate(zip(masses_NL2.mean(0), looks_NL.mean(0), strict=True))
        ],
        "heads": heads_LA.tolist(),
        "best_head": {
            "layer": layer,
            "head": head,
            "looks": float(heads_LA[layer, head]),
            "by_chunks": _by_chunks(answers, looks_NLA[:, layer, head], chances),
            "by_answer": _by_answer(answers, looks_NLA[:, layer, head]),
        },
    }


def _masses(answer: Mapping) -> np.ndarray:
    """Return [L, 2]: attention to the evidence and to the other chunks, the mean over heads."""
    attention_LC = answer["attention_LAC"].mean(1)
    evidence_L = attention_LC[:, list(answer["evidence"])].sum(-1)
    return np.stack([evidence_L, attention_LC.sum(-1) - evidence_L], axis=-1)


def _looks(attention: np.ndarray, evidence: Sequence[int]) -> np.ndarray:
    return np.isin(attention.argmax(-1), list(evidence))


def _by_chunks(answers: Sequence[Mapping], looks_N: np.ndarray, chances: Sequence[float]) -> list[dict]:
    groups = _grouped(answers, lambda answer: answer["attention_LAC"].shape[-1])
    return [
        {
            "chunks": chunks,
            "n": len(rows),
            "looks": float(looks_N[rows].mean()),
            "chance": float(np.mean([chances[row] for row in rows])),
        }
        for chunks, rows in groups
    ]


def _by_answer(answers: Sequence[Mapping], looks_N: np.ndarray) -> list[dict]:
    groups = _grouped(answers, lambda answer: answer["right"])
    return [{"right": right, "n": len(rows), "looks": float(looks_N[rows].mean())} for right, rows in groups]


def _grouped(answers: Sequence[Mapping], key: Callable) -> list[tuple[object, list[int]]]:
    groups: dict[object, list[int]] = {}
    for row, answer in enumerate(answers):
        groups.setdefault(key(answer), []).append(row)
    return sorted(groups.items())
