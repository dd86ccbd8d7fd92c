"""The ledger of a boot: how its stages become samples, and what they prove together."""

from itertools import pairwise

from scenarios.contract import Cell, Stages

CLOCKS_S = 0.01  # a stage's own clock and the observer's may differ by so much: a tick of the kernel that tells it
# a busy host sees the console late, perhaps after what the guest's own clock says came next: hence two orders
ORDERS = (
    ("process_ms", "vcpu_ms", "kernel_ms", "userspace_ms", "answer_ms"),
    ("process_ms", "vcpu_ms", "kernel_ms", "init_ms", "answer_ms"),
)


def record_stages(cell: Cell, stages: Stages) -> None:
    """Record every stage that was seen; raises WorkNotProven where they are not in their order."""
    reached = {
        "process_ms": stages.process_s,
        "vcpu_ms": stages.vcpu_s,
        "vmm_ms": stages.running_s,
        "kernel_ms": stages.kernel_s,
        "init_ms": stages.init_s,
        "userspace_ms": stages.userspace_s,
        "answer_ms": stages.answer_s,
    }
    seen = {metric: at_s for metric, at_s in reached.items() if at_s is not None}
    if stages.api_s is not None:
        cell.record("api_ms", (stages.api_s - stages.requested_s) * 1e3)
    for metric, at_s in seen.items():
        cell.record(metric, (at_s - stages.requested_s) * 1e3)
        cell.prove(stages.requested_s < at_s + CLOCKS_S, f"{metric}: the boot was there before it was requested")
    for order in ORDERS:
        for one, next_one in pairwise(metric for metric in order if metric in seen):
            in_order = seen[one] <= seen[next_one] + CLOCKS_S
            cell.prove(in_order, f"the boot's stages are not in their order: {next_one} came before {one}")
