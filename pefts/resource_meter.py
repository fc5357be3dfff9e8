"""Time and memory of a stretch of work on one device."""

import contextlib
import ctypes
import time
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class ResourceMeter:
    """Measures a `with` block: `seconds`, and `peak_bytes`, the most memory held beyond what was held before it.

    On a GPU that is what torch allocates; on the processor it is the memory resident, which Linux alone counts anew for
    a block (elsewhere `peak_bytes` is None). Memory that was freed but not given back to the system would hide what the
    block takes, so it is given back first (glibc's `malloc_trim`).
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds = 0.0
        self.peak_bytes: int | None = None

    def __enter__(self) -> "ResourceMeter":
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._held = torch.cuda.memory_allocated(self.device)
        else:
            _give_back()
            self._held = _reset_resident_peak()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds = time.perf_counter() - self._started
        peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else _resident("VmHWM")
        if self._held is not None and peak is not None:
            self.peak_bytes = max(0, peak - self._held)


def _give_back() -> None:
    # With another C library, what was freed before counts as held.
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _reset_resident_peak() -> int | None:
    """Count the peak anew from now on; returns the bytes resident, None where that cannot be done."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return None
    return _resident("VmRSS")


def _resident(name: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":")), None)
