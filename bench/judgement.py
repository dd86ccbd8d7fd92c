"""How often the judgement accuses an innocent check-in, and how often it finds a guilty one (simulated).

`python -m bench.judgement` prints a table. Each campaign is drawn from the noise that was measured on two busy
cores, and judged by the same code as real ones: five blocks in three sessions, on two clusters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from farm.analysis.blocks import BlockTable, difference
from farm.analysis.multiplicity import holm
from farm.analysis.rules import FAMILY_ALPHA, beyond, verdict_of

# coefficient of variation and δ of the metrics of one session
METRICS: Sequence[tuple[float, float]] = (
    *((0.06, 0.1), (0.06, 0.1), (0.04, 0.1), (0.22, 0.25), (0.07, 0.1), (0.31, 0.5), (0.37, 0.5), (0.14, 0.5)),
    *((0.15, 0.25), (0.22, 0.25), (0.35, 0.3), (0.42, 0.3), (0.05, 0.1), (0.24, 0.25), (0.39, 0.5), (0.1, 0.1)),
    *((0.03, 0.1), (0.09, 0.25), (0.06, 0.1), (0.15, 0.25), (0.1, 0.25), (0.03, 0.1), (0.05, 0.1), (0.08, 0.1)),
    *((0.3, 0.3), (0.2, 0.25), (0.12, 0.25), (0.04, 0.1), (0.25, 0.5), (0.35, 0.5)),
)
NOISES: Mapping[str, str] = {
    "lognormal": "independent, lognormal",
    "heavy": "Student's t with three degrees of freedom",
    "spikes": "3 % of the values 1.3 to 3 times too high",
    "one noisy": "one revision scatters three times as much, in every metric",
    "session": "half of the variance stays for a session with each revision",
}
CLUSTERS = 2
_SESSION_OF_BLOCK = (0, 1, 1, 2, 2)
_SESSIONS = tuple(f"session {index}" for index in _SESSION_OF_BLOCK)
_BLOCK_SPREAD = 0.3  # what a whole block shares: the host's mood


@dataclass(frozen=True)
class Plant:
    """A change that the first check-in after the oldest makes, in `metrics` metrics of `variation` (CV)."""

    ratio: float
    variation: float
    metrics: int = 1


PLANTS = (
    Plant(1.36, 0.03),
    Plant(1.36, 0.06),
    Plant(1.36, 0.06, 3),
    Plant(2.9, 0.09),
    Plant(2.9, 0.15),
    Plant(2.9, 0.15, 3),
)


@dataclass(frozen=True)
class Rates:
    """Share of campaigns with any false finding, and of campaigns × clusters in which the planted change was found."""

    false: float
    found: float
    comparisons: int  # per campaign


def simulate(
    *, revisions: int, campaigns: int, noise: str = "lognormal", plant: Plant | None = None, seed: int = 1
) -> Rates:
    """Draw and judge campaigns. Three revisions are a check-in, its parent and the canary; more are a window."""
    rng = np.random.default_rng(seed)
    false = found = comparisons = 0
    for _ in range(campaigns):
        clusters = [_judge_cluster(rng, revisions, noise, plant) for _ in range(CLUSTERS)]
        comparisons = sum(len(named) for named in clusters)
        false += any(is_named and not is_planted for named in clusters for is_planted, is_named in named)
        found += sum(any(is_named and is_planted for is_planted, is_named in named) for named in clusters)
    return Rates(false / campaigns, found / campaigns / CLUSTERS, comparisons)


def _judge_cluster(
    rng: np.random.Generator, revisions: int, noise: str, plant: Plant | None
) -> list[tuple[bool, bool]]:
    """For each comparison of one campaign on one cluster: whether it was planted, and whether it was named."""
    names = tuple(f"r{index}" for index in range(revisions))
    pairs = [(names[1], names[0])] if revisions <= 3 else list(zip(names[1:], names, strict=False))
    judged = []
    for index, (variation, delta) in enumerate(METRICS):
        planted = plant if plant is not None and index < plant.metrics else None
        logs = _draw(rng, planted.variation if planted else variation, revisions, noise)
        if planted is not None:
            logs[:, 1:] += np.log(planted.ratio)
        table = BlockTable(_SESSIONS, names, logs)
        for child, parent in pairs:
            found = difference(table, child, parent)
            assert found is not None
            judged.append((found, delta, planted is not None and child == names[1]))
    adjusted = holm([found.estimate.p_value or 0.0 for found, *_ in judged], CLUSTERS)
    return [
        (
            is_planted,
            verdict_of(found.estimate, p_adjusted, delta, FAMILY_ALPHA) == "different"
            and beyond(found.estimate.ratio, delta)
            and found.agrees,
        )
        for (found, delta, is_planted), p_adjusted in zip(judged, adjusted, strict=True)
    ]


def _draw(rng: np.random.Generator, variation: float, revisions: int, noise: str) -> NDArray[np.float64]:
    """Logarithms of five blocks × revisions without any true difference."""
    shape = (len(_SESSIONS), revisions)
    logs = rng.normal(0.0, variation, shape)
    if noise == "heavy":
        logs = rng.standard_t(3, shape) * variation / np.sqrt(3)
    elif noise == "spikes":
        logs += (rng.random(shape) < 0.03) * np.log(rng.uniform(1.3, 3.0, shape))
    elif noise == "one noisy":
        logs[:, 1] *= 3
    elif noise == "session":
        logs = (logs + rng.normal(0.0, variation, (3, revisions))[list(_SESSION_OF_BLOCK)]) / np.sqrt(2)
    return logs + rng.normal(0.0, _BLOCK_SPREAD, (shape[0], 1))


def main() -> None:
    campaigns = 1000
    print(f"{campaigns} campaigns each; share with any false finding")
    for revisions in (3, 5):
        for noise, meaning in NOISES.items():
            rates = simulate(revisions=revisions, campaigns=campaigns, noise=noise)
            print(f"  {revisions} revisions, {rates.comparisons} comparisons, {meaning}: {rates.false:.2%}", flush=True)
    print("share of campaigns × clusters in which a planted change was found")
    for revisions in (3, 5):
        for plant in PLANTS:
            rates = simulate(revisions=revisions, campaigns=campaigns // 4, plant=plant)
            what = f"{plant.ratio}× in {plant.metrics} metric(s) of CV {plant.variation:.0%}"
            print(f"  {revisions} revisions, {what}: {rates.found:.1%}", flush=True)


if __name__ == "__main__":
    main()
