"""What each baseline reads of a context: which tokens, how many, in which order."""

import pytest

from dataset.store import ChunkStore
from pefts.baselines import BASELINES, keep_both_ends, keep_head, keep_tail, retrieve
from pefts.eval_contexts import EvalContext
from tests.pefts.conftest import town_records, write_store


@pytest.fixture
def context(model, tmp_path) -> EvalContext:
    """A context of eleven sentences, a chunk each."""
    text = "\n".join(record["context"].split("\n")[0] for record in town_records(24)[:22:2])
    store = ChunkStore.open(write_store(tmp_path / "one", [{"context": text, "prompt": "Who?", "answer": "Ada"}]))
    return EvalContext(model, store, 0, [store.example(0)])


def test_cuts_keep_their_ends():
    ids = list(range(10))
    assert keep_head(ids, 3) == [0, 1, 2]
    assert keep_tail(ids, 3) == [7, 8, 9]
    assert keep_both_ends(ids, 3) == [0, 1, 9]
    assert keep_both_ends(ids, 4) == [0, 1, 8, 9]
    assert keep_both_ends(ids, 1) == [0]
    for keep in (keep_head, keep_tail, keep_both_ends):
        assert keep(ids, 10) == keep(ids, 99) == ids
        assert keep(ids, 0) == []


def test_every_mode_reads_what_it_says(context):
    ids, slots = context.token_ids, context.num_slots
    assert slots == len(context.chunks) == 11
    assert len(ids) > 50
    expected = {
        "base_closed_book": [],
        "truncate_head": ids[:50],
        "truncate_tail": ids[-50:],
        "truncate_middle": ids[:25] + ids[-25:],
        "truncate_to_budget_head": ids[:slots],
        "truncate_to_budget_tail": ids[-slots:],
        "truncate_to_budget_middle": ids[:6] + ids[-5:],
        "retrieval_to_budget": retrieve(context, "Who?", slots),
        "retrieval_to_window": retrieve(context, "Who?", 50),
        "full": ids,
    }
    assert {mode: reader(context, "Who?", 50) for mode, reader in BASELINES.items()} == expected
    assert all(reader.__doc__ for reader in BASELINES.values())
    for mode in ("truncate_to_budget_head", "truncate_to_budget_tail", "retrieval_to_budget"):
        assert len(BASELINES[mode](context, "Who?", 5)) == 5, "the window bounds the budget"


def test_retrieval_takes_the_nearest_chunks_in_the_order_of_the_document(context):
    prompt = context.chunks[7]
    order = (context.chunk_vectors @ context.chunk_vectors[7]).argsort(descending=True).tolist()
    assert order[0] == 7, "a chunk is nearest to itself"
    wanted = sorted(order[:3])
    token_ids = context.chunk_token_ids
    count = sum(len(token_ids[chunk]) for chunk in wanted)
    assert retrieve(context, prompt, count) == [token for chunk in wanted for token in token_ids[chunk]]
    cut = retrieve(context, prompt, count - 2)
    last = order[2]
    assert cut == [
        token for chunk in wanted for token in (token_ids[chunk][:-2] if chunk == last else token_ids[chunk])
    ]
    assert retrieve(context, prompt, 10**6) == context.token_ids


def test_forgetting_makes_everything_anew(context):
    before, vectors = context.encoded, context.chunk_vectors
    assert context.encoded is before
    context.forget()
    assert context.encoded is not before
    assert context.chunk_vectors is not vectors
    assert context.encoded.chunk_tokens.equal(before.chunk_tokens)
