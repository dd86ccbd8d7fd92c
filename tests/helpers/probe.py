"""A scenario that needs no hosts, for tests of everything around scenarios."""

from collections.abc import Mapping

from scenarios.contract import Bench, Metric, Sheet


class Probe:
    name = "probe"
    version = 1
    metrics = (Metric("answer_ms", "ms", "lower", 0.1, "Time to an answer"),)

    def measure(self, bench: Bench, sheet: Sheet, params: Mapping[str, object]) -> None:
        raise NotImplementedError("only its declarations are used")


PROBE = Probe()
