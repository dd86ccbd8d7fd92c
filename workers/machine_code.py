"""Instructions that Python has no word for, run in this process."""

import ctypes
import mmap
import platform
from collections.abc import Callable
from typing import Any


def function_of(code: bytes, result: Any, *arguments: Any) -> Callable[..., Any] | None:
    """x86-64 code as a function of C types; None on other processors, and where no memory may be executed.

    What it is loaded into stays for as long as this process does.
    """
    if platform.machine() != "x86_64":
        return None
    try:
        memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    memory.write(code)
    _loaded.append(memory)
    return ctypes.CFUNCTYPE(result, *arguments)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))


_loaded: list[mmap.mmap] = []
