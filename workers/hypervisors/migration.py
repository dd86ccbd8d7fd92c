"""One live migration as libvirt runs it: with a deadline, and with whose fault it is that it failed."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import libvirt

from scenarios.contract import Failed, MigrationReport, ScenarioError
from workers.hypervisors.calls import ask, error_of, is_gone

_CALL_TIMEOUT_S = 30.0
# libvirt notices a dead peer after 30 s; only then an aborted migration's call returns
_ABORT_TIMEOUT_S = 40.0


def run(
    what: str,
    domain: libvirt.virDomain,
    migrate: Callable[[], object],
    *,
    timeout_s: float,
    last_words: Callable[[], str],
) -> None:
    """Call `migrate`; raises Failed (hypervisor) when the guest breaks, or when it is not done in time.

    It is aborted then. `last_words` says what the guest's console tells.
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
    thread.join(timeout_s)
    if not outcome:
        with contextlib.suppress(ScenarioError):  # it may end by itself right now
            ask(f"abort: {what}", _CALL_TIMEOUT_S, domain.abortJob)
        thread.join(_ABORT_TIMEOUT_S)
        raise Failed("hypervisor", f"{what}: not done within {timeout_s:g} s{last_words()}")
    error = outcome[0]
    if error is not None and is_gone(error):
        raise Failed("hypervisor", f"{what}: the guest broke: {error}{last_words()}")
    if error is not None:
        raise error_of(what, error)


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


def report(started_s: float, finished_s: float, told: dict[str, Any]) -> MigrationReport:
    """The report of a migration between these times, with what libvirt's job statistics tell of it."""
    downtime_ms, processed = told.get("downtime"), told.get("memory_processed")
    return MigrationReport(
        started_s,
        finished_s,
        float(downtime_ms) if downtime_ms is not None else None,
        processed / (1 << 20) if processed is not None else None,
        told.get("memory_iteration"),
    )
