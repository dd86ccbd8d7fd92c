"""Guests that a host's libvirt knows, by their names, whoever made them: told, and removed."""

import contextlib
from collections.abc import Callable

import libvirt


def names(uri: str) -> set[str]:
    with _connected(uri) as connection:
        return {domain.name() for domain in connection.listAllDomains()}


def remove(uri: str, wanted: Callable[[str], bool]) -> tuple[str, ...]:
    """Destroy and undefine those with a wanted name; returns their names."""
    with _connected(uri) as connection:
        found = [domain for domain in connection.listAllDomains() if wanted(domain.name())]
        for domain in found:
            _remove(domain)
        return tuple(sorted(domain.name() for domain in found))


def _connected(uri: str) -> contextlib.closing[libvirt.virConnect]:
    libvirt.registerErrorHandler(lambda *_: None, None)  # errors come as exceptions; no second copy on stderr
    return contextlib.closing(libvirt.open(uri))


def _remove(domain: libvirt.virDomain) -> None:
    persistent = domain.isPersistent()
    with contextlib.suppress(libvirt.libvirtError):
        domain.destroy()  # not running is fine
    if persistent:
        domain.undefineFlags(
            libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
        )
