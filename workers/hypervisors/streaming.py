"""Bringing to a guest's disk, while the guest runs, what the disk still has elsewhere (libvirt's block pull)."""

import time
import xml.etree.ElementTree as ET

import libvirt

from scenarios.contract import Failed
from workers.hypervisors.calls import ask, ask_vmm
from workers.hypervisors.domain import DISK_TARGET

_CALL_TIMEOUT_S = 30.0
_POLL_S = 0.02
_LATE_SHARE = 0.01  # of what it took, its end may be noticed late: each look costs libvirtd CPU time, which is measured


def pull(what: str, connection: libvirt.virConnect, domain: libvirt.virDomain, *, timeout_s: float) -> None:
    """Returns when the disk has nothing elsewhere any more; raises Unsupported and Failed (hypervisor)."""
    ask_vmm(what, _CALL_TIMEOUT_S, connection, lambda: domain.blockPull(DISK_TARGET, 0, 0))
    began_s = time.monotonic()
    while ask_vmm(what, _CALL_TIMEOUT_S, connection, lambda: domain.blockJobInfo(DISK_TARGET, 0)):
        took_s = time.monotonic() - began_s
        if took_s > timeout_s:
            ask(what, _CALL_TIMEOUT_S, lambda: domain.blockJobAbort(DISK_TARGET, 0))
            raise Failed("hypervisor", f"{what}: not done within {timeout_s:g} s")
        time.sleep(max(_POLL_S, took_s * _LATE_SHARE))
    if left := _elsewhere(ask(what, _CALL_TIMEOUT_S, lambda: domain.XMLDesc(0))):
        raise Failed("hypervisor", f"{what}: it ended, but the disk still has {left}")


def _elsewhere(xml: str) -> str:
    """What the running guest's disk lies over, or nothing."""
    source = ET.fromstring(xml).find("devices/disk/backingStore/source")
    return "" if source is None else f"a source {ET.tostring(source, encoding='unicode').strip()}"
