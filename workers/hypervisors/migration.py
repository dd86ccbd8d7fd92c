"""One live migration as libvirt runs it: with a deadline, and with whose fault it is that it failed."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import libvirt

from scenarios.contract import Failed, MigrationPhase, MigrationReport, MigrationStyle, ScenarioError, WorkNotProven
from workers.hypervisors.calls import ask, error_of, is_gone

_CALL_TIMEOUT_S = 30.0
# libvirt notices a dead peer after 30 s; only then an aborted migration's call returns
_ABORT_TIMEOUT_S = 40.0
_PASSES_BEFORE_SWITCH = 2  # the second has begun: all memory was sent once
_POLL_S = 0.01
_PHASE_POLL_S = 0.002
_SWITCHING = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION]


# UNSAFE: the disk is shared through a folder, which libvirt cannot know to be coherent
_ALWAYS = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_UNSAFE


def flags_of(style: MigrationStyle, disk_format: str | None = None) -> int:
    """Libvirt's flags for a style; `disk_format` is that of a disk that is copied along."""
    flags = int(_ALWAYS)
    if style.post_copy:
        flags |= libvirt.VIR_MIGRATE_POSTCOPY
    if style.connections:
        flags |= libvirt.VIR_MIGRATE_PARALLEL
    if style.compression != "none":
        flags |= libvirt.VIR_MIGRATE_COMPRESSED
    if style.auto_converge:
        flags |= libvirt.VIR_MIGRATE_AUTO_CONVERGE
    if disk_format == "raw":
        flags |= libvirt.VIR_MIGRATE_NON_SHARED_DISK
    if disk_format == "qcow2":  # an overlay: its base is there already
        flags |= libvirt.VIR_MIGRATE_NON_SHARED_INC
    return flags


def parameters_of(style: MigrationStyle) -> dict[str, str | int]:
    """Libvirt's parameters for a style."""
    parameters: dict[str, str | int] = {}
    if style.bandwidth_mib_s is not None:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = style.bandwidth_mib_s
    if style.connections:
        parameters[libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS] = style.connections
    if style.compression != "none":
        parameters[libvirt.VIR_MIGRATE_PARAM_COMPRESSION] = style.compression
    return parameters


def _switch_to_post_copy(what: str, domain: libvirt.virDomain, over: Callable[[], bool], timeout_s: float) -> bool:
    """After the first pass over the memory let the guest run on the target; False where it was `over` before."""
    deadline = time.monotonic() + timeout_s
    while not over() and time.monotonic() < deadline:
        with contextlib.suppress(ScenarioError):  # no job yet, or none any more
            told = ask(f"progress: {what}", _CALL_TIMEOUT_S, domain.jobStats)
            if told.get("memory_iteration", 0) >= _PASSES_BEFORE_SWITCH:
                ask(f"switch: {what}", _CALL_TIMEOUT_S, lambda: domain.migrateStartPostCopy(0))
                return True
        time.sleep(_POLL_S)
    return False


def wait_for(phase: MigrationPhase, what: str, domain: libvirt.virDomain, *, timeout_s: float) -> None:
    """Until the domain's migration is in this phase; raises WorkNotProven when that is not seen in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(Failed):  # no job yet, or the guest is gone already
            if phase == "transfer" and ask(what, _CALL_TIMEOUT_S, domain.jobStats).get("memory_processed", 0) > 0:
                return
            if phase == "switch-over" and ask(what, _CALL_TIMEOUT_S, domain.state) == _SWITCHING:
                return
        time.sleep(_PHASE_POLL_S)
    raise WorkNotProven(f"{what}: its {phase} was not seen within {timeout_s:g} s")


def cancel(what: str, domain: libvirt.virDomain) -> None:
    """Abort the domain's migration; harmless when it has just ended."""
    with contextlib.suppress(Failed):
        ask(what, _CALL_TIMEOUT_S, domain.abortJob)


def run(
    what: str,
    domain: libvirt.virDomain,
    migrate: Callable[[], object],
    *,
    timeout_s: float,
    last_words: Callable[[], str],
    post_copy: bool = False,
) -> None:
    """Call `migrate`; raises Failed (hypervisor) when the guest breaks, or when it is not done in time.

    It is aborted then. `last_words` says what the guest's console tells. Raises WorkNotProven for a post-copy
    migration that ended before it could be switched: it was an ordinary one.
    """
    outcome: list[libvirt.libvirtError | None] = []

    def call() -> None:
        try:
            migrate()
            outcome.append(None)
        except libvirt.libvirtError as error:
            outcome.append(error)

    thread = threading.Thread(target=call, daemon=True, name=what)
    thread.start()
    switched = post_copy and _switch_to_post_copy(what, domain, lambda: bool(outcome), timeout_s)
    thread.join(timeout_s)
    if not outcome:
        cancel(f"abort: {what}", domain)
        thread.join(_ABORT_TIMEOUT_S)
        raise Failed("hypervisor", f"{what}: not done within {timeout_s:g} s{last_words()}")
    error = outcome[0]
    if error is not None and is_gone(error) and not _lives(what, domain):
        raise Failed("hypervisor", f"{what}: the guest is there no more: {error}{last_words()}")
    if error is not None:
        raise error_of(what, error)
    if post_copy and not switched:
        raise WorkNotProven(f"{what}: done before it could be switched to post-copy: cap its bandwidth")


def _lives(what: str, domain: libvirt.virDomain) -> bool:
    try:
        return bool(ask(what, _CALL_TIMEOUT_S, domain.isActive))
    except ScenarioError:
        return False


def statistics(what: str, domain: libvirt.virDomain) -> dict[str, Any]:
    """What the hypervisor tells of the migration that brought the guest here; empty when it tells nothing."""
    try:
        return ask(
            f"statistics: {what}",
            _CALL_TIMEOUT_S,
            lambda: dict(domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)),
        )
    except ScenarioError:  # a hypervisor need not keep them, and a guest may have broken since
        return {}


def report(
    started_s: float, finished_s: float, told: dict[str, Any], source_cpu_s: float | None, daemon_cpu_s: float
) -> MigrationReport:
    """The report of a migration between these times, with what libvirt's job statistics tell of it."""
    downtime_ms, sent = told.get("downtime"), told.get("memory_processed")
    return MigrationReport(
        started_s,
        finished_s,
        float(downtime_ms) if downtime_ms is not None else None,
        sent / (1 << 20) if sent is not None else None,
        told.get("memory_iteration"),
        source_cpu_s,
        daemon_cpu_s,
    )
