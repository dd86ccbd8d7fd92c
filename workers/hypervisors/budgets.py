"""What a donor lends of a host is asked for before it is taken: more than that is nobody's fault, and is not made."""

from collections.abc import Sequence
from pathlib import Path

from scenarios.contract import Unsupported
from workers.hypervisors.link import HostLink

_CALL_TIMEOUT_S = 30.0


def require_memory(link: HostLink, mib: int, taken: Sequence[int]) -> None:
    """For one more guest beside those that have `taken` theirs. Raises Unsupported."""
    budget = link.host.budget
    if budget is not None and sum(taken) + mib > budget.memory_mib:
        lent = f"{budget.memory_mib} MiB are lent for guests, {sum(taken)} of them are taken"
        raise Unsupported(f"no {mib} MiB of memory for a guest on {link.name}: {lent}")


def require_disk(link: HostLink, mib: int, folders: Sequence[Path]) -> None:
    """For something that may grow to `mib`, beside what the session has in `folders`. Raises Unsupported."""
    budget = link.host.budget
    if budget is None:
        return
    asked = [str(folder) for folder in folders]
    taken = int(link.agent.call("hosts.lent.held_mib", timeout_s=_CALL_TIMEOUT_S, folders=asked))
    if taken + mib > budget.disk_mib:
        lent = f"{budget.disk_mib} MiB are lent, {taken} of them are taken"
        raise Unsupported(f"no {mib} MiB of disk on {link.name}: {lent}")
