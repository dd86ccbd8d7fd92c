"""A comparison as pages tell it: the verdict's words, its sign, its ratio and interval, what it rests on."""

from collections.abc import Sequence
from dataclasses import dataclass

from farm.results.tables import ComparisonRow
from farm.verdicts import DECLARED_NOT_JUDGED
from reports.charts import Bar, Tone
from reports.metrics import MeasuredMetric, interval_text, ratio_text

DIFFERENT, NO_DIFFERENCE, INCONCLUSIVE, NOT_JUDGED = (
    "different",
    "no difference beyond δ",
    "inconclusive",
    "not judged",
)
VERDICTS = (DIFFERENT, NO_DIFFERENCE, INCONCLUSIVE, NOT_JUDGED)
SIGNS = {"worse": "▲", "better": "▼", "plain": "•"}


@dataclass(frozen=True)
class Judged:
    """One row of the newest analysis. The ratio is revision ÷ parent, or cluster ÷ other cluster.

    `short` names the revision and `other` what it was held against, in words.
    """

    row: ComparisonRow
    metric: MeasuredMetric
    short: str
    other: str

    @property
    def ratio(self) -> float | None:
        return self.row.ratio

    @property
    def low(self) -> float | None:
        return self.row.low

    @property
    def high(self) -> float | None:
        return self.row.high

    @property
    def n(self) -> int:
        return self.row.n

    @property
    def fidelity(self) -> str:
        return self.row.fidelity

    @property
    def verdict(self) -> str:
        return self.row.verdict

    @property
    def provisional(self) -> bool:
        return self.verdict == NOT_JUDGED

    @property
    def waits(self) -> bool:
        """Whether it will be judged when more of it is in."""
        return self.provisional and self.metric.may_be_judged

    @property
    def weight(self) -> tuple[bool, int, int]:
        """Where several campaigns compared the same, the weightiest is shown: judged, with the most replications."""
        return not self.provisional, self.n, self.row.id

    @property
    def n_text(self) -> str:
        return count_text(self.n, self.row.replication)

    @property
    def tone(self) -> Tone:
        """ "worse" or "better" only where a difference was judged; whatever else is "plain"."""
        return self.metric.tone(self.ratio) if self.verdict == DIFFERENT else "plain"

    @property
    def below_delta(self) -> bool:
        """Whether a difference is surely there and yet smaller than what matters."""
        return self.ratio is not None and max(self.ratio, 1 / self.ratio) <= 1 + self.row.delta

    @property
    def verdict_text(self) -> str:
        """The verdict with its sign, for a revision against its parent."""
        if not self.metric.may_be_judged:
            return DECLARED_NOT_JUDGED
        if self.verdict == NO_DIFFERENCE:
            return f"no difference beyond δ = {self.row.delta * 100:.3g} %"
        if self.verdict != DIFFERENT or self.ratio is None:
            return self.verdict
        below = ", below δ" if self.below_delta else ""
        return f"{SIGNS[self.tone]} different: {self.metric.change_words(self.ratio)}{below}"

    @property
    def told(self) -> str:
        """Everything a figure must carry, in one line."""
        if self.ratio is None:
            return "no ratio"
        told = f"ratio {ratio_text(self.ratio)}"
        if self.low is not None and self.high is not None:
            told += f", 95 % interval {ratio_text(self.low)} to {ratio_text(self.high)}"
        told += f", {self.n_text} in {count_text(self.row.sessions, 'session')}"
        if self.row.p_adjusted is not None:
            told += f", p {self.row.p_adjusted:.2g} corrected"
        return f"{told}, {self.fidelity}, revision {self.short} against {self.other}, {self.metric.better}"

    @property
    def sentence(self) -> str:
        """ "1.60 times slower [1.55–1.66]", for a ratio that is known."""
        if self.ratio is None:
            return ""
        return f"{self.metric.change_words(self.ratio)} {interval_text(self.ratio, self.low, self.high)}".strip()

    def bar(self, label: str) -> Bar | None:
        if self.ratio is None or self.ratio <= 0:
            return None
        return Bar(label, self.ratio, self.low, self.high, "not judged" if self.provisional else self.tone)


def verdict_counts(judged: Sequence[Judged]) -> str:
    """ "2 different, 9 inconclusive, 1 not judged": what came out, in the verdicts' own words."""
    verdicts = [item.verdict for item in judged]
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS if verdict in verdicts)


def count_text(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
