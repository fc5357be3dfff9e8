"""The two normalisations, and where they differ."""

import pytest

from evaluate.text_normalization import normalize_squad, normalize_triviaqa


@pytest.mark.parametrize(
    "text, squad, triviaqa",
    [
        ("The  Great\tGatsby!", "great gatsby", "great gatsby"),
        ("well-known", "wellknown", "well known"),
        ("U.K.", "uk", "u k"),
        ("U.S.A.", "usa", "u s"),
        ("2,500.75", "250075", "2 500 75"),
        ("snake_case", "snakecase", "snake case"),
        ("it’s", "it’s", "it s"),
        ("“quoted”", "“quoted”", "“quoted”"),
        ("A", "", ""),
        ("theatre another", "theatre another", "theatre another"),
        ("Café NAÏVE", "café naïve", "café naïve"),
        ("Straße", "straße", "straße"),
        ("one\u00a0two", "one two", "one two"),
        ("one\u200btwo", "one\u200btwo", "one\u200btwo"),
        ("...", "", ""),
    ],
)
def test_normalisations(text, squad, triviaqa):
    assert normalize_squad(text) == squad
    assert normalize_triviaqa(text) == triviaqa


def test_unicode_forms_are_not_folded():
    assert normalize_squad("é") != normalize_squad("e\u0301")
