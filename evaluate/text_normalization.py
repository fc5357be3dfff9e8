"""The two ways published scorers reduce an answer to comparable words. They differ, so scores are not comparable."""

import re
import string

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_DELETE_PUNCTUATION = str.maketrans("", "", string.punctuation)
# TriviaQA's scorer adds two curly quotes, the acute accent and the backtick to ASCII punctuation.
_PUNCTUATION_TO_SPACE = str.maketrans(dict.fromkeys(string.punctuation + "‘’´`", " "))


def normalize_squad(text: str) -> str:
    """Lower, delete ASCII punctuation, drop the words a/an/the, and squeeze white space.

    Source: the SQuAD 1.1 scorer, copied by SCROLLS, LongBench v1 and CEPE. Punctuation is *deleted*: "U.S.A." becomes
    "usa" and "eiffel-tower" becomes "eiffeltower". Accents, ligatures and non-ASCII quotes stay as they are.
    """
    text = text.lower().translate(_DELETE_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def normalize_triviaqa(text: str) -> str:
    """Lower, turn punctuation into spaces, drop the words a/an/the, and squeeze white space.

    Source: TriviaQA's `triviaqa_evaluation.py`. Punctuation *becomes a space*: "U.S.A." becomes "u s" (its A is then an
    article) and "eiffel-tower" becomes "eiffel tower".
    """
    text = text.lower().translate(_PUNCTUATION_TO_SPACE)
    return " ".join(_ARTICLES.sub(" ", text).split())
