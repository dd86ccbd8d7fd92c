"""The CPU time that a move takes: of the VMM that the guest leaves, and of the daemons at both ends."""

from concurrent.futures import Future, ThreadPoolExecutor

from scenarios.contract import ScenarioError
from workers.agent import AgentLink

_CALL_TIMEOUT_S = 30.0


class SpentByMove:
    """A context manager around the move; `source_cpu_s` is None where the VMM was not seen to its end."""

    def __init__(self, guest: str, source: AgentLink, target: AgentLink, limit_s: float) -> None:
        self.source_cpu_s: float | None = None
        self.daemon_cpu_s = 0.0
        self._guest = guest
        self._source = source
        self._daemons = {source, target}
        self._limit_s = limit_s
        self._watching = ThreadPoolExecutor(1)

    def __enter__(self) -> "SpentByMove":
        self.daemon_cpu_s = -self._of_daemons()
        self._before_s = float(
            self._source.call("basics.guest_cpu_s", timeout_s=_CALL_TIMEOUT_S, guest=self._guest),
        )
        self._last_s: Future[float] = self._watching.submit(self._watch)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._watching.shutdown(wait=False)
        if kind is None:
            self.daemon_cpu_s += self._of_daemons()
            self.source_cpu_s = self._result()

    def _watch(self) -> float:
        timeout_s = self._limit_s + _CALL_TIMEOUT_S
        return float(
            self._source.call(
                "hypervisors.ledger.last_cpu_s", timeout_s=timeout_s, guest=self._guest, limit_s=self._limit_s
            )
        )

    def _result(self) -> float | None:
        try:
            return self._last_s.result(_CALL_TIMEOUT_S) - self._before_s
        except (TimeoutError, ScenarioError):
            return None

    def _of_daemons(self) -> float:
        operation = "hypervisors.ledger.daemon_cpu_s"
        return sum(float(agent.call(operation, timeout_s=_CALL_TIMEOUT_S)) for agent in self._daemons)
