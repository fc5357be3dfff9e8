"""Questions and documents of qa_1 and qa_2: from files in the releases' formats, and generated."""

import json
import random

import pytest

from preprocess.ruler_questions import GeneratedQuestions, read_hotpotqa, read_squad
from preprocess.text_length import TokenCount
from tests.conftest import decoder_tokenizer
from utils.common_utils import UserError


def squad_file(path, num_articles: int = 3):
    articles = []
    for article in range(num_articles):
        paragraphs = []
        for number in range(4):
            answered = {"question": f"Who is {article}-{number}?", "answers": [{"text": f"Ada{article}{number}"}] * 2}
            paragraphs.append(
                {
                    "context": f"Text {article}-{number} tells of Ada{article}{number}.",
                    "qas": [answered, {"question": "Who not?", "answers": [], "is_impossible": True}],
                }
            )
        articles.append({"title": str(article), "paragraphs": paragraphs})
    path.write_text(json.dumps({"version": "v2.0", "data": articles}))
    return path


def hotpotqa_file(path, num_questions: int = 4, num_paragraphs: int = 10):
    questions = [
        {
            "_id": str(number),
            "question": f"Which town is {number}?",
            "answer": f"Town{number}",
            "context": [
                [f"Title {number}-{p}", [f"Town{number} is here.", f" It is {p}."]] for p in range(num_paragraphs)
            ],
        }
        for number in range(num_questions)
    ]
    path.write_text(json.dumps(questions))
    return path


@pytest.fixture(scope="module")
def measure() -> TokenCount:
    return TokenCount(decoder_tokenizer())


def test_squad_takes_the_articles_other_paragraphs_before_others(tmp_path, measure):
    questions = read_squad(squad_file(tmp_path / "squad.json"))
    question = questions.question(1)
    assert (question.text, question.answers) == ("Who is 0-1?", ("Ada01",))
    documents, costs = questions.haystack(question, random.Random(0), measure, 1000)
    assert documents[0] == "Text 0-1 tells of Ada01."
    assert sorted(documents[1:4]) == [f"Text 0-{n} tells of Ada0{n}." for n in (0, 2, 3)]
    assert len(documents) == len(set(documents)) == len(costs) == 12
    assert costs[0] == measure("Document 1000:\n" + documents[0] + "\n\n")
    with pytest.raises(UserError, match="holds 12 questions; lower --num_samples"):
        questions.question(12)


def test_hotpotqa_gives_all_ten_paragraphs(tmp_path, measure):
    questions = read_hotpotqa(hotpotqa_file(tmp_path / "hotpot.json"))
    question = questions.question(2)
    assert question.answers == ("Town2",) and len(question.documents) == 10
    assert question.documents[3] == "Title 2-3\nTown2 is here. It is 3."
    documents, _ = questions.haystack(question, random.Random(0), measure, 1000)
    assert tuple(documents[:10]) == question.documents and len(documents) == 40


@pytest.mark.parametrize(
    ("reader", "content", "message"),
    [
        (read_squad, [], "no SQuAD file: it is an object with the key 'data'"),
        (read_squad, {"data": [{"paragraphs": [{"context": "x"}]}]}, "no SQuAD file: KeyError\\('qas'\\)"),
        (read_squad, {"data": []}, "holds no question with an answer"),
        (read_hotpotqa, [{"question": "x"}], "no HotpotQA file: KeyError\\('context'\\)"),
        (read_hotpotqa, [], "holds no question"),
    ],
)
def test_files_of_another_format(tmp_path, reader, content, message):
    (tmp_path / "f.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"f.json: {message}"):
        reader(tmp_path / "f.json")


@pytest.mark.parametrize("hops", [1, 2])
def test_generated_questions_are_answered_by_their_documents_alone(measure, hops):
    questions = GeneratedQuestions(hops, seed=0)
    kinds = set()
    for index in range(8):
        question = questions.question(index)
        assert question == GeneratedQuestions(hops, seed=0).question(index)
        assert any(question.answers[0] in document for document in question.documents)
        assert question.not_mentioned and "the person who" not in question.text
        documents, costs = questions.haystack(question, random.Random(0), measure, 3000)
        others = documents[len(question.documents) + len(question.related) :]
        assert others and not [d for d in others for name in question.not_mentioned if name in d]
        assert costs.sum() > 3000
        kinds.add(len(question.documents))
    assert kinds == {1} if hops == 1 else max(kinds) == 2


def test_a_longer_sample_before_changes_nothing(measure):
    fresh, used = GeneratedQuestions(1, seed=0), GeneratedQuestions(1, seed=0)
    used.haystack(used.question(5), random.Random(1), measure, 20_000)
    question = fresh.question(0)
    expected = fresh.haystack(question, random.Random(2), measure, 2000)[0]
    assert used.haystack(question, random.Random(2), measure, 2000)[0] == expected
