"""Revision against revision: a randomised complete block design on logarithms.

Whatever the host does to a whole block (load, temperature, a neighbour) multiplies all its values alike and
cancels in the difference child − parent of that block. With five blocks a pair alone has only four degrees
of freedom for its scatter, so the other revisions of the same blocks lend theirs: they count for at most
`LENT` times as many as the pair's own, and the variance is never taken below the pair's own. So a campaign of many
revisions gains power, and one revision that scatters three times as much as the others accuses nobody.

The canary needs no subtraction here: (child − canary) − (parent − canary) is child − parent within a block.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import median

import numpy as np
from numpy.typing import NDArray

from farm.analysis.rules import AGREEMENT, LENT, SESSIONS_NEEDED, Estimate
from farm.analysis.student import two_sided_p


@dataclass(frozen=True)
class Measured:
    """One value of one revision in one round; `valid` is False for a void sample."""

    session: str
    block: int
    round: int
    revision: str
    value: float
    valid: bool


@dataclass(frozen=True, eq=False)
class BlockTable:
    """One metric on one cluster in one campaign.

    `logs` has one row per block and one column per revision: the median over rounds of the logarithm of the
    value; NaN where the revision was not measured whole in that block. `sessions` names each row's session.
    """

    sessions: tuple[str, ...]
    revisions: tuple[str, ...]
    logs: NDArray[np.float64]

    @cached_property
    def residual(self) -> tuple[float, int]:
        """Sum of squares and degrees of freedom left by block + revision, missing cells allowed."""
        rows, columns = np.nonzero(~np.isnan(self.logs))
        design = np.zeros((len(rows), sum(self.logs.shape)))
        design[np.arange(len(rows)), rows] = 1.0
        design[np.arange(len(rows)), self.logs.shape[0] + columns] = 1.0
        values = self.logs[rows, columns]
        fit, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
        return float(np.sum((values - design @ fit) ** 2)), len(rows) - int(rank)


@dataclass(frozen=True)
class Difference:
    """A revision against its parent.

    `lost` counts blocks that held only one of the two. `per_session` is the effect that each session shows
    by itself, `raw` the effect when blocks are ignored; both on logarithms, like `estimate.effect`.
    """

    estimate: Estimate
    lost: int
    per_session: Mapping[str, float]
    raw: float

    @property
    def agrees(self) -> bool:
        """Same sign and at least half the size: in two independent sessions, and in the raw series."""
        showing = [effect for effect in self.per_session.values() if self._shows(effect)]
        return len(showing) >= SESSIONS_NEEDED and self._shows(self.raw)

    def _shows(self, effect: float) -> bool:
        whole = self.estimate.effect
        return effect * whole > 0 and abs(effect) >= AGREEMENT * abs(whole)


def block_table(values: Iterable[Measured]) -> BlockTable:
    """Arrange values, warm-ups left out by the caller.

    A cell counts only when every round of its session brought a valid value above zero.
    """
    cells: dict[tuple[str, int], dict[str, dict[int, float]]] = {}
    rounds: dict[str, set[int]] = {}
    for item in values:
        rounds.setdefault(item.session, set()).add(item.round)
        cell = cells.setdefault((item.session, item.block), {}).setdefault(item.revision, {})
        if item.valid and item.value > 0:
            cell[item.round] = math.log(item.value)
    keys = sorted(cells)
    revisions = sorted({revision for row in cells.values() for revision in row})
    logs = np.full((len(keys), len(revisions)), np.nan)
    for i, key in enumerate(keys):
        for j, revision in enumerate(revisions):
            cell = cells[key].get(revision, {})
            if len(cell) == len(rounds[key[0]]):
                logs[i, j] = median(cell.values())
    return BlockTable(tuple(session for session, _ in keys), tuple(revisions), logs)


def difference(table: BlockTable, child: str, parent: str) -> Difference | None:
    """Child against parent; None when no block holds both."""
    if child not in table.revisions or parent not in table.revisions:
        return None
    ours = table.logs[:, table.revisions.index(child)]
    theirs = table.logs[:, table.revisions.index(parent)]
    steps = ours - theirs
    whole = ~np.isnan(steps)
    n = int(whole.sum())
    if n == 0:
        return None
    sessions = np.array(table.sessions)
    per_session = {
        str(name): float(steps[whole & (sessions == name)].mean()) for name in dict.fromkeys(sessions[whole])
    }
    return Difference(
        estimate=_estimate(table, steps[whole]),
        lost=int((np.isnan(ours) != np.isnan(theirs)).sum()),
        per_session=per_session,
        raw=float(np.nanmean(ours) - np.nanmean(theirs)),
    )


def _estimate(table: BlockTable, steps: NDArray[np.float64]) -> Estimate:
    """Mean difference, its standard error and degrees of freedom, as the module's text says."""
    n, effect = len(steps), float(steps.mean())
    if n < 2:
        return Estimate(effect, None, None, n, None)
    squares, freedom = table.residual
    own_squares, own_freedom = float(np.sum((steps - effect) ** 2)) / 2, n - 1
    rest_freedom = freedom - own_freedom
    rest = max(0.0, squares - own_squares) / rest_freedom if rest_freedom else 0.0
    lent = min(float(rest_freedom), LENT * own_freedom)
    variance = max(own_squares / own_freedom, (own_squares + lent * rest) / (own_freedom + lent))
    se = float(np.sqrt(2 * variance / n))
    return Estimate(effect, se, own_freedom + lent, n, two_sided_p(effect, se, own_freedom + lent))
