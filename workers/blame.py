"""Whose fault it is what a hypervisor did that the session has deployed itself."""

from collections.abc import Callable, Sequence
from typing import TypeGuard

from scenarios.contract import Failed, ScenarioError
from scenarios.recipe import DAEMON
from workers.deadline import Late


class DaemonFailed(Failed):
    """A libvirtd does not take our calls, or the way to it is not there: its owner's fault."""

    def __init__(self, reason: str) -> None:
        super().__init__("donor", reason)


def is_daemons(error: ScenarioError) -> TypeGuard[Failed]:
    """Whether it says that a libvirtd did not answer."""
    return isinstance(error, DaemonFailed | Late) and error.fault == "donor"


def of(components: Sequence[str]) -> Callable[[Failed], Failed]:
    """Puts the blame on these components of a stack, where it is a hypervisor that they are."""

    def blame(error: Failed) -> Failed:
        told = " and ".join(components)
        if components and error.fault == "hypervisor":
            return Failed("stack", f"component {told}: {error}")
        if DAEMON in components and is_daemons(error):
            return Failed("stack", f"component {DAEMON}: {error}")
        return error

    return blame
