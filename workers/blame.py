"""Whose fault it is what a hypervisor did that the session has deployed itself."""

from collections.abc import Callable, Sequence

from scenarios.contract import Failed
from scenarios.recipe import DAEMON


class DaemonFailed(Failed):
    """A libvirtd did not answer, or the way to it is not there: its owner's fault."""

    def __init__(self, reason: str) -> None:
        super().__init__("donor", reason)


def of(components: Sequence[str]) -> Callable[[Failed], Failed]:
    """Puts the blame on these components of a stack, where it is a hypervisor that they are."""

    def blame(error: Failed) -> Failed:
        told = " and ".join(components)
        if components and error.fault == "hypervisor":
            return Failed("stack", f"component {told}: {error}")
        if DAEMON in components and isinstance(error, DaemonFailed):
            return Failed("stack", f"component {DAEMON}: {error}")
        return error

    return blame
