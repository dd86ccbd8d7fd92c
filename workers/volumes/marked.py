"""A volume that is full of a tenant's markers (scenarios.contract.MarkedVolume), on one host."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers.agent import AgentLink

_TIMEOUT_S = 360


@dataclass
class AgentVolume:
    """A volume of the host at the other end of `agent`, made now."""

    agent: AgentLink
    path: Path
    mib: int
    tenant: str
    extents: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.extents = self._ask("make", mib=self.mib, tenant=self.tenant)

    def wipe(self, method: str) -> tuple[float, float]:
        took_s, cpu_s = self._ask("wipe", mib=self.mib, method=method)
        return took_s, cpu_s

    def prove_unreadable(self) -> str:
        return str(self._ask("prove_unreadable", mib=self.mib, tenant=self.tenant))

    def left_percent(self) -> float | None:
        left = self._ask("left_percent", tenant=self.tenant, extents=self.extents)
        return None if left is None else float(left)

    def prove_next_tenant(self) -> str:
        return str(self._ask("prove_next_tenant", mib=self.mib, tenant=self.tenant, extents=self.extents))

    def remove(self) -> None:
        self.agent.call("volumes.base.remove", timeout_s=_TIMEOUT_S, path=str(self.path))

    def _ask(self, operation: str, **arguments: Any) -> Any:
        return self.agent.call(f"volumes.wiping.{operation}", timeout_s=_TIMEOUT_S, path=str(self.path), **arguments)
