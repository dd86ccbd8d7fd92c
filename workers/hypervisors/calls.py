"""Calls to libvirt: each with a deadline, each error with the one whose fault it is."""

from collections.abc import Callable
from typing import TypeVar

import libvirt

from scenarios.contract import Failed, ScenarioError, Unsupported
from workers.blame import DaemonFailed
from workers.deadline import Late, within

Result = TypeVar("Result")

_DAEMON_TIMEOUT_S = 5.0

_CANNOT = {libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, libvirt.VIR_ERR_OPERATION_UNSUPPORTED}
# a flag or method that libvirt does not know; a way to migrate that QEMU does not have on this host
_CANNOT_IN_WORDS = (
    (libvirt.VIR_ERR_INVALID_ARG, "nsupported"),
    (libvirt.VIR_ERR_INVALID_ARG, "only supported with"),
    (libvirt.VIR_ERR_INTERNAL_ERROR, "'migrate-set-capabilities'"),
)
# what the session asked for cannot be had in this combination: settings of the stack
_SETTINGS = {libvirt.VIR_ERR_CONFIG_UNSUPPORTED, libvirt.VIR_ERR_XML_ERROR, libvirt.VIR_ERR_XML_DETAIL}
# the daemon or the way to it, not the hypervisor
_CONNECTION = {
    libvirt.VIR_ERR_NO_CONNECT,
    libvirt.VIR_ERR_INVALID_CONN,
    libvirt.VIR_ERR_RPC,
    libvirt.VIR_ERR_SYSTEM_ERROR,
    libvirt.VIR_ERR_AUTH_FAILED,
}


def ask(what: str, timeout_s: float, function: Callable[[], Result]) -> Result:
    """Call libvirt; raises Unsupported or Failed with one line that begins with `what`."""
    try:
        return within(timeout_s, what, function)
    except libvirt.libvirtError as error:
        raise error_of(what, error) from None


def ask_vmm(what: str, timeout_s: float, connection: libvirt.virConnect, function: Callable[[], Result]) -> Result:
    """As `ask`, for what a guest's VMM has to answer; Failed (hypervisor) where it does not and libvirtd does."""
    try:
        return ask(what, timeout_s, function)
    except Late as late:
        try:
            ask("look whether libvirtd answers", _DAEMON_TIMEOUT_S, connection.getLibVersion)
        except ScenarioError:
            raise late from None
        raise Failed("hypervisor", f"{late}; libvirtd answers, the guest's VMM does not") from None


def find(connection: libvirt.virConnect, name: str, timeout_s: float) -> libvirt.virDomain | None:
    """The domain of that name, or None."""

    def look() -> libvirt.virDomain | None:
        try:
            return connection.lookupByName(name)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise

    return ask(f"look for guest {name}", timeout_s, look)


def error_of(what: str, error: libvirt.libvirtError) -> ScenarioError:
    """Our error for one of libvirt's."""
    code = error.get_error_code()
    text = f"{what}: {' '.join(str(error).split())[:400]}"
    if code in _CANNOT or any(code == answer and words in text for answer, words in _CANNOT_IN_WORDS):
        return Unsupported(text)
    if code in _CONNECTION:
        return DaemonFailed(text)
    return Failed("stack" if code in _SETTINGS else "hypervisor", text)


def is_gone(error: libvirt.libvirtError) -> bool:
    """Whether the error says that the domain is no more."""
    return bool(error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID))
