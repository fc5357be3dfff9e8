"""The batch plan: a pure function of (data, seed, step) that leaves nothing out."""

from collections import Counter

import numpy as np
import pytest

from dataset.batch_plan import BatchPlan, PseudoRandomPermutation, Stage
from utils.common_utils import UserError

NUM_CHUNKS = np.array([1, 4, 2, 7, 1, 3])
EXAMPLE_CONTEXT = np.array([0, 3, 1, 3, 3, 5, 1, 0, 3, 3])  # contexts 2 and 4 have no prompts


def make_plan(stages=(), seed=0, **sizes) -> BatchPlan:
    stages = stages or [Stage(reasoning_share=0.5, max_window_chunks=3)]
    sizes = {"understanding_batch_size": 6, "reasoning_batch_size": 4, "prompts_per_context": 2} | sizes
    return BatchPlan(NUM_CHUNKS, EXAMPLE_CONTEXT, stages, seed, **sizes)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 1000, 4097])
def test_permutation_is_one(n):
    values = PseudoRandomPermutation(n, "key")(np.arange(n))
    assert sorted(values.tolist()) == list(range(n))
    if n > 60:
        other = PseudoRandomPermutation(n, "other key")(np.arange(n))
        assert (values != other).mean() > 0.9
        assert (values != np.arange(n)).mean() > 0.9
        # No trace of the order is left: neighbours are as far apart as two random values, n / 3 on average.
        assert abs(np.abs(np.diff(values)).mean() / n - 1 / 3) < 0.1


def test_a_step_needs_no_history():
    plan, fresh = make_plan(), make_plan()
    steps = [plan.batch(step) for step in range(40)]
    for step in (39, 7, 0, 22):
        assert fresh.batch(step) == steps[step]
    assert [batch.units for batch in steps] != [make_plan(seed=1).batch(step).units for step in range(40)]


def test_every_prompt_is_answered_once_an_epoch():
    plan = make_plan([Stage(reasoning_share=1.0)], reasoning_batch_size=3)
    # 10 prompts in groups of two: contexts 0, 1 and 5 make one group each, context 3 with five prompts makes three.
    groups = [unit for step in range(2) for unit in plan.batch(step).units]
    assert Counter(example for unit in groups for example in unit.examples) == Counter(range(10))
    for unit in groups:
        assert {EXAMPLE_CONTEXT[example] for example in unit.examples} == {unit.context}
        assert (unit.first_chunk, unit.end_chunk) == (0, NUM_CHUNKS[unit.context])
    later = [unit for step in range(2, 4) for unit in plan.batch(step).units]
    assert Counter(example for unit in later for example in unit.examples) == Counter(range(10))
    assert later != groups
    assert [plan.batch(step).epoch for step in range(4)] == [0, 0, 1, 1]


def test_a_stage_may_have_a_number_of_contexts_a_step_of_its_own():
    short = Stage(steps=4, reasoning_share=0.5, max_context_chunks=3, reasoning_batch_size=2)
    plan = make_plan([short, Stage(reasoning_share=1.0)], reasoning_batch_size=1)
    sizes = [(plan.objective(step), len(plan.batch(step).units)) for step in range(6)]
    assert sizes == [*([("understanding", 6), ("reasoning", 2)] * 2), ("reasoning", 1), ("reasoning", 1)]
    fitting = {example for example, context in enumerate(EXAMPLE_CONTEXT) if NUM_CHUNKS[context] <= 3}
    answered = [example for step in (1, 3) for unit in plan.batch(step).units for example in unit.examples]
    assert set(answered) <= fitting
    assert plan.batch_size("reasoning", 0) == ("data.stages[0].reasoning_batch_size", 2)
    with pytest.raises(UserError, match="reasoning_batch_size=-1 must not be negative"):
        Stage(reasoning_batch_size=-1)


def test_every_chunk_begins_or_ends_a_window_once_an_epoch():
    plan = make_plan([Stage(reasoning_share=0.0, max_window_chunks=1)])
    units = [unit for step in range(3) for unit in plan.batch(step).units]
    chunks = Counter((unit.context, unit.first_chunk) for unit in units)
    assert chunks == Counter((c, i) for c, n in enumerate(NUM_CHUNKS.tolist()) for i in range(n))


def test_windows_lie_within_their_context_and_have_all_widths():
    plan = make_plan([Stage(reasoning_share=0.0, min_window_chunks=2, max_window_chunks=4)])
    widths = Counter()
    for step in range(30):
        for unit in plan.batch(step).units:
            assert 0 <= unit.first_chunk < unit.end_chunk <= NUM_CHUNKS[unit.context]
            assert not unit.examples
            widths[unit.end_chunk - unit.first_chunk] += NUM_CHUNKS[unit.context] == 7
    assert {2, 3, 4} <= {width for width, count in widths.items() if count}


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_objectives_are_spread_evenly(share):
    plan = make_plan([Stage(reasoning_share=share)])
    is_reasoning = [plan.objective(step) == "reasoning" for step in range(40)]
    assert sum(is_reasoning) == pytest.approx(40 * share)
    for start in range(0, 40, 20):
        assert sum(is_reasoning[start : start + 20]) == pytest.approx(20 * share, abs=1)


def test_cued_steps_are_a_share_of_the_understanding_steps():
    stage = Stage(reasoning_share=0.5, max_window_chunks=1, cued_share=0.25, cued_prompts=2, max_cued_chunks=4)
    plan = make_plan([stage])
    objectives = [plan.objective(step) for step in range(40)]
    assert Counter(objectives) == {"reasoning": 20, "understanding": 15, "cued": 5}
    for start in (0, 20):
        assert objectives[start : start + 20].count("cued") in (2, 3)
    cued = [plan.batch(step) for step, objective in enumerate(objectives) if objective == "cued"]
    units = [unit for batch in cued for unit in batch.units]
    widths = Counter(unit.end_chunk - unit.first_chunk for unit in units)
    assert set(widths) == {1, 2, 3, 4}
    assert all(unit.num_cues == min(2, unit.end_chunk - unit.first_chunk) for unit in units)
    assert all(batch.prompts_per_unit == 2 for batch in cued)
    assert len({unit.cue_seed for unit in units}) == len(units) == 30
    # An epoch of 18 chunks: each begins or ends a window once in it.
    assert [batch.epoch for batch in cued] == [0, 0, 0, 1, 1]
    plain = [plan.batch(step) for step, objective in enumerate(objectives) if objective == "understanding"]
    assert all(unit.num_cues == 0 and unit.end_chunk - unit.first_chunk == 1 for b in plain for unit in b.units)
    assert cued == [make_plan([stage]).batch(batch.step) for batch in cued]


def test_without_cues_nothing_changes():
    """The windows of a run without cued steps are those it had before there were any."""
    units = make_plan().batch(0).units
    assert [(unit.context, unit.first_chunk, unit.end_chunk) for unit in units] == [
        (1, 1, 2),
        (2, 0, 2),
        (1, 2, 3),
        (2, 0, 2),
        (3, 4, 6),
        (3, 0, 3),
    ]
    assert make_plan([Stage(cued_prompts=9, max_cued_chunks=9, max_window_chunks=3)]).batch(0).units == units


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_units_of_others_share_no_chunk_with_the_step(share):
    plan = make_plan([Stage(reasoning_share=share, max_window_chunks=3)], reasoning_batch_size=2)
    for step in range(20):
        own = {
            (unit.context, chunk)
            for unit in plan.batch(step).units
            for chunk in range(unit.first_chunk, unit.end_chunk)
        }
        others = plan.units_of_others(step)
        assert others == make_plan(plan.stages, reasoning_batch_size=2).units_of_others(step)
        assert others
        for unit in others:
            assert own.isdisjoint((unit.context, chunk) for chunk in range(unit.first_chunk, unit.end_chunk))
            assert bool(unit.examples) == (plan.objective(step) == "reasoning")


def test_where_all_steps_read_the_same_there_are_no_others():
    plan = BatchPlan(np.array([2]), np.array([0, 0]), [Stage(reasoning_share=1.0)], 0, 1, 1)
    assert plan.units_of_others(0) == []


def test_stages_follow_each_other():
    stages = [
        Stage(steps=3, reasoning_share=0.0, max_window_chunks=1),
        Stage(steps=4, reasoning_share=1.0, max_context_chunks=3),
        Stage(reasoning_share=1.0, min_context_chunks=4),
    ]
    plan = make_plan(stages)
    assert [plan.objective(step) for step in range(9)] == ["understanding"] * 3 + ["reasoning"] * 6
    for step in range(3, 7):
        assert all(NUM_CHUNKS[unit.context] <= 3 for unit in plan.batch(step).units)
    for step in range(7, 12):
        assert all(NUM_CHUNKS[unit.context] >= 4 for unit in plan.batch(step).units)


def test_impossible_stages_are_refused():
    with pytest.raises(UserError, match=r"data.stages\[0\]: no prompt .* context of 5 to 6 chunks"):
        make_plan([Stage(min_context_chunks=5, max_context_chunks=6)])
    with pytest.raises(UserError, match="every stage but the last needs steps"):
        make_plan([Stage(), Stage()])
    for options in (
        {"reasoning_share": 1.5},
        {"min_window_chunks": 5},
        {"steps": -1},
        {"min_context_chunks": 0},
        {"cued_share": -0.1},
        {"cued_prompts": 0},
        {"min_cued_chunks": 5},
        {"max_cued_chunks": -1},
    ):
        with pytest.raises(UserError, match="data.stages"):
            Stage(**options)
