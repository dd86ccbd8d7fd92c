"""Verdicts in words: where there is none, why."""

from farm.results.tables import ComparisonRow
from scenarios.registry import SCENARIOS

DECLARED_NOT_JUDGED = "declared not judged"  # in place of a verdict, where the scenario lets nobody be judged by it
_TOO_FEW = {"revisions": "too few blocks or sessions so far", "clusters": "too few sessions matched in time so far"}


def may_be_judged(scenario: str, metric: str) -> bool:
    """Whether the scenario lets anybody be judged by it.

    A version that is gone is judged by the present declaration of the same name, so that is asked.
    """
    declared = SCENARIOS[scenario].metrics if scenario in SCENARIOS else ()
    return all(one.judged for one in declared if one.name == metric)


def told(row: ComparisonRow) -> str:
    """The verdict for a terminal."""
    if not may_be_judged(row.scenario, row.metric):
        return f"{DECLARED_NOT_JUDGED}: its figures are shown, and accuse nobody"
    return f"{row.verdict}: {_TOO_FEW[row.between]}" if row.verdict == "not judged" else row.verdict
