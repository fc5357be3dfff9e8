"""What comes back when a chunk is restated: names, numbers and other words, by their place in the chunk.

    text ──word_spans──▶ (start, end, kind) ──kinds_of_tokens──▶ a kind a token ──summarise_recovery──▶ figures

Pure functions; `pefts.diagnostics` gets the chunks from the model. Accuracies are teacher-forced: each token is
predicted from the chunk token and the true text before it. Beside each stands the same under the chunk token of another
chunk: what can be guessed from the language alone.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

WORD_KINDS = ("name", "number", "other word")
TOKEN_KINDS = (*WORD_KINDS, "punctuation", "end")
NUM_POSITION_BINS = 10

_WORD = re.compile(r"\w+(?:['’.,:-]\w+)*")
_ENDS_SENTENCE = re.compile(r"(?:^|[.!?:;\n])[\s\"'“”‘’()\[\]-]*$")


def word_spans(text: str) -> list[tuple[int, int, str]]:
    """Return (start, end, kind) of each word: `number` with a digit, `name` when capitalised, else `other word`.

    A capitalised word that begins a sentence is a name only where a capitalised word follows, or where it is
    capitalised inside a sentence too.
    """
    words = [(match.start(), match.end(), match.group()) for match in _WORD.finditer(text)]
    begins = [_ENDS_SENTENCE.search(text[max(0, start - 8) : start]) is not None for start, _, _ in words]
    inside = {word for (_, _, word), first in zip(words, begins, strict=True) if word[0].isupper() and not first}
    spans = []
    for index, (start, end, word) in enumerate(words):
        follower = words[index + 1] if index + 1 < len(words) else None
        followed = follower is not None and follower[2][0].isupper() and text[end : follower[0]] == " "
        if any(character.isdigit() for character in word):
            kind = "number"
        elif word[0].isupper() and (not begins[index] or followed or word in inside):
            kind = "name"
        else:
            kind = "other word"
        spans.append((start, end, kind))
    return spans


def kinds_of_tokens(text: str, token_spans: Sequence[tuple[int, int]]) -> list[str]:
    """Return the kind of each token: that of the first word it has a part in; `punctuation` if none, `end` if empty.

    Args:
        token_spans: characters [start, end) of the tokens, in the order of the text.
    """
    words = word_spans(text)
    kinds, first = [], 0
    for start, end in token_spans:
        while first < len(words) and words[first][1] <= start:
            first += 1
        if start == end:
            kinds.append("end")
        elif first < len(words) and words[first][0] < end:
            kinds.append(words[first][2])
        else:
            kinds.append("punctuation")
    return kinds


def summarise_recovery(chunks: Sequence[Mapping]) -> dict:
    """Average by kind, and by kind and tenth of the chunk.

    Args:
        chunks: restated chunks, each `{"text": str, "token_spans": [(start, end) in characters, ...]}` with `"losses"`
            in nats, `"correct"`, and the same under another chunk's token, `"losses_shuffled"` and
            `"correct_shuffled"`, one a token.

    Returns:
        `{"num_chunks", "by_kind": [{"kind", "n", "accuracy", "accuracy_shuffled", "loss", "loss_shuffled"}],
        "by_position": [the same with "position", the middle of the tenth]}`; accuracies from 0 to 1, losses in nats a
        token, positions from 0, the beginning of the chunk, to 1. The last kind is `all`. A kind or tenth without
        tokens is left out.
    """
    kinds = np.array([kind for chunk in chunks for kind in kinds_of_tokens(chunk["text"], chunk["token_spans"])])
    places = np.array([start / len(chunk["text"]) for chunk in chunks for start, _ in chunk["token_spans"]])
    bins = np.minimum((places * NUM_POSITION_BINS).astype(int), NUM_POSITION_BINS - 1)
    columns = {
        name: np.array([value for chunk in chunks for value in chunk[key]], dtype=float)
        for name, key in (
            ("accuracy", "correct"),
            ("accuracy_shuffled", "correct_shuffled"),
            ("loss", "losses"),
            ("loss_shuffled", "losses_shuffled"),
        )
    }

    def means(chosen: np.ndarray) -> dict:
        return {"n": int(chosen.sum()), **{name: float(values[chosen].mean()) for name, values in columns.items()}}

    by_kind = [{"kind": kind, **means(kinds == kind)} for kind in TOKEN_KINDS if (kinds == kind).any()]
    by_kind.append({"kind": "all", **means(np.ones(len(kinds), dtype=bool))})
    by_position = [
        {"kind": kind, "position": (index + 0.5) / NUM_POSITION_BINS, **means(chosen)}
        for kind in WORD_KINDS
        for index in range(NUM_POSITION_BINS)
        if (chosen := (kinds == kind) & (bins == index)).any()
    ]
    return {"num_chunks": len(chunks), "by_kind": by_kind, "by_position": by_position}
