"""A step's time by parts, with a clock that the test sets."""

import pytest
import torch
from torch import nn

from pefts.step_clock import StepClock


@pytest.fixture
def clock(monkeypatch) -> StepClock:
    encoder = nn.Identity()
    clock = StepClock(encoder, torch.device("cpu"))
    clock.encoder, clock.time = encoder, 0.0
    monkeypatch.setattr(clock, "_now", lambda: clock.time)
    # The encoder takes two seconds a call.
    encoder.register_forward_pre_hook(lambda *_: setattr(clock, "time", clock.time + 2))
    return clock


def test_a_forward_pass_is_divided(clock):
    for _ in range(2):
        with clock.forward():
            clock.time += 1
            clock.encoder(torch.zeros(1))
            clock.time += 4
    with clock.phase("backward"):
        clock.encoder(torch.zeros(1))
        clock.time += 8
    assert clock.take() == {"encoder": 4, "decoder": 10, "backward": 10}
    assert clock.take() == {}


def test_an_error_ends_the_forward_pass(clock):
    with pytest.raises(RuntimeError), clock.forward():
        raise RuntimeError
    clock.encoder(torch.zeros(1))
    assert "encoder" not in clock.take()
