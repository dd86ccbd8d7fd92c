"""What changed about a cluster from one session to the next: facts in, lines for people out."""

from collections.abc import Mapping
from typing import Any

# what is never twice the same, and tells the mood of a host rather than what it is
VOLATILE = frozenset({"load", "steal", "temperature", "trap cost", "timer cost"})

HostFacts = Mapping[str, Mapping[str, Any]]


def changes(before: HostFacts, after: HostFacts) -> list[str]:
    """One line for each fact of each host that differs, such as "h1: kernel was 6.1.0-1, is 6.1.0-2"."""
    lines = [f"{host}: was not in the session before" for host in sorted(after.keys() - before.keys())]
    lines += [
        f"{host}: was in the session before, and is not in this one" for host in sorted(before.keys() - after.keys())
    ]
    for host in sorted(before.keys() & after.keys()):
        then, now = before[host], after[host]
        for fact in sorted((then.keys() | now.keys()) - VOLATILE):
            if then.get(fact) != now.get(fact):
                lines.append(f"{host}: {fact} was {then.get(fact, 'not read')}, is {now.get(fact, 'not read')}")
    return lines
