"""Deadlines for calls that have none of their own, such as libvirt's."""

import concurrent.futures
import threading
from collections.abc import Callable
from typing import TypeVar

from scenarios.contract import Failed, Fault

Result = TypeVar("Result")


class Late(Failed):
    """A call that did not return in time."""


def within(timeout_s: float, what: str, function: Callable[[], Result], *, fault: Fault = "donor") -> Result:
    """Return what `function` returns, or raise what it raises; Late(fault) when it takes longer.

    A call that hangs is left behind in a daemon thread: it holds up neither us nor the end of the process.
    """
    answer: concurrent.futures.Future[Result] = concurrent.futures.Future()

    def call() -> None:
        try:
            answer.set_result(function())
        except BaseException as error:  # noqa: BLE001  handed to the caller
            answer.set_exception(error)

    threading.Thread(target=call, daemon=True, name=what).start()
    # wait(), not result(): a TimeoutError of the function itself must not look like ours
    if not concurrent.futures.wait([answer], timeout_s).done:
        raise Late(fault, f"{what}: no answer within {timeout_s:g} s")
    return answer.result()
