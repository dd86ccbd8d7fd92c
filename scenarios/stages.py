"""The ledger of a boot: how its stages become samples, and what they prove together."""

from collections.abc import Mapping
from itertools import combinations, pairwise

from scenarios.contract import Cell, Moment, Stages

REQUEST = "the request"
# a busy host sees the console late, perhaps after what the guest's own clock says came next: hence two orders
ORDERS = (
    (REQUEST, "process_ms", "vcpu_ms", "kernel_ms", "userspace_ms", "answer_ms"),
    (REQUEST, "process_ms", "vcpu_ms", "kernel_ms", "init_ms", "answer_ms"),
    (REQUEST, "vmm_ms"),
)


def record_stages(cell: Cell, stages: Stages) -> None:
    """Record every stage that was seen; raises WorkNotProven where they cannot have been in their order.

    Of two that are the wrong way round only as far as their clocks may be wrong the less certain one is not told.
    """
    reached = {
        REQUEST: _exactly(stages.requested_s),
        "process_ms": stages.process,
        "vcpu_ms": stages.vcpu,
        "vmm_ms": _exactly(stages.running_s),
        "kernel_ms": stages.kernel,
        "init_ms": stages.init,
        "userspace_ms": stages.userspace,
        "answer_ms": _exactly(stages.answer_s),
    }
    seen = {metric: moment for metric, moment in reached.items() if moment is not None}
    wrong = _contradictions(seen)
    for metric, reason in ({} if wrong else _uncertain(seen)).items():
        cell.evidence(f"{metric} is not told: {reason}")
        del seen[metric]
    if stages.api_s is not None:
        cell.record("api_ms", (stages.api_s - stages.requested_s) * 1e3)
    for metric in seen.keys() - {REQUEST}:
        cell.record(metric, (seen[metric].at_s - stages.requested_s) * 1e3)
    cell.prove(not wrong, f"the boot's stages are not in their order: {'; '.join(wrong)}")


def _contradictions(seen: Mapping[str, Moment]) -> list[str]:
    """Pairs that no error of the clocks explains, whatever was seen between them."""
    pairs = {pair for order in ORDERS for pair in combinations((metric for metric in order if metric in seen), 2)}
    wrong = [(one, later) for one, later in sorted(pairs) if seen[later].latest_s < seen[one].earliest_s]
    return [f"{later} came before {one}" for one, later in wrong]


def _uncertain(seen: Mapping[str, Moment]) -> dict[str, str]:
    """What cannot be told, and why: of each pair that seems to be the wrong way round, what is known less well."""
    reasons: dict[str, str] = {}
    for order in ORDERS:
        known = [metric for metric in order if metric in seen and metric not in reasons]
        while wrong := [pair for pair in pairwise(known) if seen[pair[0]].at_s > seen[pair[1]].at_s]:
            one, later = wrong[0]
            uncertain = max(wrong[0], key=lambda metric: seen[metric].latest_s - seen[metric].earliest_s)
            reasons[uncertain] = f"the clocks are not sure enough of whether {one} was before {later}"
            known.remove(uncertain)
    return reasons


def _exactly(at_s: float) -> Moment:
    return Moment(at_s, at_s, at_s)
