"""The ledger of a boot: how its stages become samples, and what they prove together."""

from scenarios.contract import Cell, Stages

CLOCKS_S = 0.01  # a stage's own clock and the observer's may differ by so much: a tick of the kernel that tells it


def record_stages(cell: Cell, stages: Stages) -> None:
    """Record every stage that was seen; raises WorkNotProven where they are not in their order."""
    reached = {
        "process_ms": stages.process_s,
        "vcpu_ms": stages.vcpu_s,
        "kernel_ms": stages.kernel_s,
        "init_ms": stages.init_s,
        "userspace_ms": stages.userspace_s,
        "answer_ms": stages.answer_s,
    }
    seen = {metric: at_s for metric, at_s in reached.items() if at_s is not None}
    for metric, at_s in {**seen, "vmm_ms": stages.running_s}.items():
        cell.record(metric, (at_s - stages.requested_s) * 1e3)
    before, before_s = "request", stages.requested_s
    for metric, at_s in seen.items():
        cell.prove(before_s <= at_s + CLOCKS_S, f"the boot's stages are not in their order: {metric} before {before}")
        before, before_s = metric, at_s
    cell.prove(stages.requested_s < stages.running_s, "the guest ran before it was requested")
