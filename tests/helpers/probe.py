"""A scenario that needs no hosts, for tests of everything around scenarios."""

from scenarios.contract import Bench, Metric, Sheet
from scenarios.parameters import Number, Parameter, Values


class Probe:
    name = "probe"
    version = 1
    metrics: tuple[Metric, ...] = (Metric("answer_ms", "ms", "lower", 0.1, "Time to an answer"),)
    parameters: tuple[Parameter, ...] = (Number("size", 1, 1, 9, "pieces", "how much is asked for"),)

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        raise NotImplementedError("only its declarations are used")


PROBE = Probe()
