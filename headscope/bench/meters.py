"""What measures single calls: a GPU's events and allocator, or what a test puts in its place."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch

Call = Callable[[], object]

_FLUSH = 2**27  # float32 numbers, more bytes than any L2 holds
_CYCLES = 2.0e9  # a second, at least: no GPU's clock is faster
_LEAST, _MOST = 2e-4, 2e-2  # seconds that the device is held for before a call


class Meter(ABC):
    """Times calls on one device.

    Attributes:
        device: where the tensors of calls are.
        name: of the device, for results.
    """

    device: torch.device
    name: str

    @abstractmethod
    def warm(self, calls: Sequence[Call]) -> None:
        """Run each call before it is timed."""

    @abstractmethod
    def round(self, calls: Sequence[Call]) -> list[float]:
        """Milliseconds of each call, once, in this order."""

    @abstractmethod
    def seconds(self, call: Call) -> float:
        """From before a call until the device is done with it, on the clock of the host."""

    @abstractmethod
    def peak(self, call: Call) -> int:
        """Bytes that are allocated at most during a call, beyond those before it."""

    @abstractmethod
    def captured(self, call: Call) -> Call:
        """The call as one launch, if the device can."""


class GpuMeter(Meter):
    """CUDA events around each call, which finds nothing of its tensors in the L2.

    Before each call more than an L2 holds is read, since a buffer that was written would leave
    lines whose way back to memory is billed to the call; then the device is held until the host has
    enqueued the call, so that events enclose the device's work alone.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.name = torch.cuda.get_device_name(device)
        self._flush = torch.zeros(_FLUSH, device=device)
        self._hold = _LEAST

    def warm(self, calls: Sequence[Call]) -> None:
        hosts = [0.0]
        for call in calls:
            call()
            self._wait()
            start = time.perf_counter()
            call()
            hosts.append(time.perf_counter() - start)
            self._wait()
        self._hold = min(_LEAST + 2 * max(hosts), _MOST)

    def round(self, calls: Sequence[Call]) -> list[float]:
        events = []
        for call in calls:
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._flush.sum()
            torch.cuda._sleep(int(self._hold * _CYCLES))
            first.record()
            call()
            last.record()
            events.append((first, last))
        self._wait()
        return [first.elapsed_time(last) for first, last in events]

    def seconds(self, call: Call) -> float:
        self._wait()
        start = time.perf_counter()
        call()
        self._wait()
        return time.perf_counter() - start

    def peak(self, call: Call) -> int:
        self._wait()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        call()
        self._wait()
        return torch.cuda.max_memory_allocated(self.device) - before

    def captured(self, call: Call) -> Call:
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(2):
                call()
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        return graph.replay

    def _wait(self) -> None:
        torch.cuda.synchronize(self.device)
