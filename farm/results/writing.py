"""How a judgement is put down: one analysis with its comparisons and findings, beside all earlier ones."""

import datetime
from collections.abc import Sequence

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session as Transaction

from farm.results.database import transact
from farm.results.tables import Analysis, ComparisonRow, Finding


def write_analysis(
    engine: Engine,
    *,
    version: int,
    cause: str,
    made_at: datetime.datetime,
    comparisons: Sequence[ComparisonRow],
    findings: Sequence[Finding],
) -> int:
    """Write one analysis whole and return its id; it supersedes the earlier ones, which stay as they were.

    The rows come without `analysis`, which is set here. A finding whose `key` is known already keeps the time
    at which it was found first.
    """

    def write(transaction: Transaction) -> int:
        analysis = Analysis(version=version, cause=cause, made_at=made_at)
        transaction.add(analysis)
        transaction.flush()
        first_found = _first_found(transaction, [finding.key for finding in findings])
        for finding in findings:
            finding.found_at = first_found.get(finding.key, finding.found_at)
            finding.analysis = analysis.id
        for comparison in comparisons:
            comparison.analysis = analysis.id
        transaction.add_all([*comparisons, *findings])
        return analysis.id

    return transact(engine, write)


def _first_found(transaction: Transaction, keys: Sequence[str]) -> dict[str, datetime.datetime]:
    query = (
        select(Finding.key, func.min(Finding.found_at).label("found_at"))
        .where(Finding.key.in_(keys))
        .group_by(Finding.key)
    )
    return {row.key: row.found_at for row in transaction.execute(query)}
