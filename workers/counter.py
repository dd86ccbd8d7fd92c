"""How fast the host's processor counts, which is how fast its guests see theirs count.

A guest's kernel would find that out for itself, against a timer of its machine. On a busy host it is kept waiting in
between, and takes its clock to run at another rate, five times too fast at worst, without a word: whatever it times
from then on is wrong. So it is told.
"""

import ctypes
import time

from workers import clocks
from workers.machine_code import function_of
from workers.operations import operation

_INTERVAL_S = 0.05  # both ends are read to a microsecond or so: 20 ppm, and the guest's kernel refines it later
_READ = bytes.fromhex(
    "0f31"  #      rdtsc
    "48c1e220"  #  shl  rdx, 32
    "4809d0"  #    or   rax, rdx
    "c3"  #        ret
)


@operation
def khz() -> int | None:
    """Counts per ms of the monotonic clock; None on processors without that counter."""
    read = function_of(_READ, ctypes.c_uint64)
    if read is None:
        return None
    began_s, began = clocks.at_one_moment(read)
    time.sleep(_INTERVAL_S)
    ended_s, ended = clocks.at_one_moment(read)
    counted = float(ended - began)
    return round(counted / (ended_s - began_s) / 1e3)
