"""Which of the stack's own tests hold at this revision?

The suite that the stack's recipe names is run once against what is deployed. Each test has an outcome of its own:
measured when it passed, failed (stack) when it did not, unsupported with its reason when it says itself that it does
not apply here. So a check-in that breaks a test is found like one that makes something slower, and a test that now
passes and now fails at the same revision shows as that.

Measured: how many passed, failed and were skipped (`passed`, `failed`, `skipped`), and the time of all (`suite_s`).

Not measured: the speed of single tests; what no test asks.

The proof: every test is told by name, at least one passed or failed, and the suite said at its end how many there were.
"""

from collections import Counter

from scenarios.contract import Bench, Failed, Metric, Scenario, Sheet, Unsupported
from scenarios.parameters import Parameter, Values
from scenarios.unlimited import COUNT

TIMEOUT_S = 900.0


class StackTests:
    name = "stack_tests"
    version = 3
    metrics: tuple[Metric, ...] = (
        Metric("passed", "tests", "higher", 0.1, "Tests that passed", judged=False, no_limit=COUNT),
        Metric("failed", "tests", "lower", 0.1, "Tests that failed", judged=False, no_limit=COUNT),
        Metric("skipped", "tests", "lower", 0.1, "Tests that do not apply here", judged=False, no_limit=COUNT),
        Metric(
            "suite_s",
            "s",
            "lower",
            0.25,
            "Time of all tests",
            judged=False,
            no_limit="what the tests do is the stack's own choice",
        ),
    )
    parameters: tuple[Parameter, ...] = ()

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        if bench.suite is None:
            raise Unsupported("the stack's recipe names no tests")
        began_s = bench.now_s()
        results = bench.suite.run(timeout_s=TIMEOUT_S)
        took_s = bench.now_s() - began_s
        for result in results:
            with sheet.cell(hosts={}, test=result.name):
                if result.outcome == "failed":
                    raise Failed("stack", result.told)
                if result.outcome == "skipped":
                    raise Unsupported(result.told)
        with sheet.cell(hosts={}) as cell:
            counts = Counter(result.outcome for result in results)
            cell.prove(counts["passed"] + counts["failed"] > 0, f"of {len(results)} tests none was run")
            cell.record("passed", counts["passed"])
            cell.record("failed", counts["failed"])
            cell.record("skipped", counts["skipped"])
            cell.record("suite_s", took_s)
            cell.evidence(f"{len(results)} tests, each told by name")


SCENARIO: Scenario = StackTests()
