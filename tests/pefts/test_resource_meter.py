"""Time and memory of a block."""

import sys
import time

import pytest
import torch

from pefts.resource_meter import ResourceMeter


def test_time_is_that_of_the_block():
    with ResourceMeter(torch.device("cpu")) as meter:
        time.sleep(0.02)
    assert 0.02 <= meter.seconds < 2


@pytest.mark.skipif(sys.platform != "linux", reason="counts the resident peak anew, which Linux alone can")
def test_memory_is_what_the_block_takes_even_if_it_took_as_much_before():
    device = torch.device("cpu")
    peaks = []
    for megabytes in (200, 100, 200, 1):
        with ResourceMeter(device) as meter:
            torch.ones(megabytes * 2**18)
        peaks.append(meter.peak_bytes / 2**20)
    assert peaks[0] == pytest.approx(200, abs=30)
    assert peaks[1] == pytest.approx(100, abs=30)
    assert peaks[2] == pytest.approx(200, abs=30)
    assert peaks[3] < 30
