"""A signal to one process ends all of them after the same step."""

import os
import signal
from types import SimpleNamespace

import pytest
from accelerate import Accelerator

from pefts import stop_signals
from pefts.stop_signals import StopSignals


@pytest.fixture
def stop() -> StopSignals:
    return StopSignals(Accelerator(cpu=True))


def test_a_signal_to_another_process_ends_this_one_too(stop, monkeypatch):
    for others in (0, signal.SIGINT):
        monkeypatch.setattr(stop_signals, "greatest", lambda _, own, others=others: max(own, others))
        assert stop.reached_any() == bool(others)
        assert stop.signal == (others or None)


def test_a_signal_that_arrives_while_the_processes_agree_is_kept_for_later(stop, monkeypatch):
    def arrives_too_late_to_be_shared(_accelerator, _own):
        stop.signal = signal.SIGTERM
        return 0

    monkeypatch.setattr(stop_signals, "greatest", arrives_too_late_to_be_shared)
    assert not stop.reached_any(), "the others go on, so this one does"
    monkeypatch.undo()
    assert stop.reached_any()
    assert stop.signal == signal.SIGTERM


def test_a_lost_launcher_stops_the_run(stop, monkeypatch):
    monkeypatch.setattr(stop_signals.os, "getppid", lambda: stop.parent_id + 1)
    assert not stop.reached_any(), "without a launcher, as under nohup, it goes on"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    assert stop.reached_any()
    assert stop.signal == signal.SIGTERM


@pytest.mark.parametrize(("processes", "fate"), [(2, "lives"), (1, "ends")])
def test_a_process_that_ends_by_an_error_outlives_the_launchers_sigterm(processes, fate):
    """Else it would be gone, with the others, before it has said what happened."""
    ends = []
    before = signal.signal(signal.SIGTERM, lambda *_: ends.append("ends"))
    try:
        with pytest.raises(RuntimeError), StopSignals(SimpleNamespace(num_processes=processes)).caught():
            raise RuntimeError("connection closed by peer")
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (ends or ["lives"]) == [fate]
