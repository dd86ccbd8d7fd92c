"""What an instruction costs that a hypervisor must answer, and what reading the clock costs.

`cpuid` is answered by a bare processor in some dozens of nanoseconds. Under a hypervisor it leaves the guest and comes
back, whatever the hypervisor says or hides of itself: hundreds of nanoseconds at the least.
"""

import ctypes
import time
from collections.abc import Callable

from workers.machine_code import function_of

_TIMES = 200
_READINGS = 5_000
_BATCHES = 5  # the quickest counts: anything else only ever makes it slower
# void many(uint64_t times) { do cpuid(0, 0); while (--times); }
_MANY_CPUIDS = bytes.fromhex(
    "53"  #       push rbx, which cpuid overwrites and the caller wants back
    "4889fe"  #   mov  rsi, rdi
    "31c0"  # 1:  xor  eax, eax
    "31c9"  #     xor  ecx, ecx
    "0fa2"  #     cpuid
    "48ffce"  #   dec  rsi
    "75f5"  #     jnz  1b
    "5b"  #       pop  rbx
    "c3"  #       ret
)


def trap_cost_ns() -> int | None:
    """Of one `cpuid`; None on processors without it, and where no memory may be executed."""
    many = function_of(_MANY_CPUIDS, None, ctypes.c_uint64)
    if many is None:
        return None
    quickest_ns = min(_took_ns(lambda: many(_TIMES)) for _ in range(_BATCHES))
    return round(quickest_ns / _TIMES)


def timer_cost_ns() -> int:
    """Of reading the monotonic clock from Python: dear where the kernel cannot read it from the processor."""
    read = time.monotonic_ns

    def readings() -> None:
        for _ in range(_READINGS):
            read()

    def nothing() -> None:
        for _ in range(_READINGS):
            pass

    spent, empty = (min(_took_ns(loop) for _ in range(_BATCHES)) for loop in (readings, nothing))
    return round(max(0, spent - empty) / _READINGS)


def _took_ns(work: Callable[[], object]) -> int:
    began = time.perf_counter_ns()
    work()
    return time.perf_counter_ns() - began
