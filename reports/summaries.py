"""Samples to the figures that pages show: rounds become blocks, blocks become one value with its interval.

Pure: frames in, frames out. These are raw values, to look at; what differs is judged in `farm.analysis`.
"""

import numpy as np
import pandas as pd
from scipy import stats

SERIES = ["repository", "cluster", "scenario", "version", "metric", "unit", "params"]
LEVEL = 0.95


def block_values(samples: pd.DataFrame) -> pd.DataFrame:
    """One row per series, revision, session and block: the median of its valid rounds.

    `samples` has the SERIES columns, revision, session, block, value, valid and warm_up.
    """
    counted = samples[samples["valid"] & ~samples["warm_up"]]
    return counted.groupby([*SERIES, "revision", "session", "block"], sort=True)["value"].median().reset_index()


def summarise(samples: pd.DataFrame) -> pd.DataFrame:
    """One row per series and revision: value (geometric mean over blocks), its 95 % interval, n, sessions, void.

    `low` and `high` are NaN for fewer than two blocks or where a value is not positive; a series that has only
    void samples has value NaN and n 0.
    """
    blocks = block_values(samples)
    keys = [*SERIES, "revision"]
    rows = [
        {
            **dict(zip(keys, key, strict=True)),
            **_summary(group["value"].to_numpy()),
            "sessions": group["session"].nunique(),
        }
        for key, group in blocks.groupby(keys, sort=True)
    ]
    figures = pd.DataFrame(rows, columns=[*keys, "value", "low", "high", "n", "sessions"])
    void = samples[~samples["valid"]].groupby(keys, sort=True).size().rename("void").reset_index()
    joined = figures.merge(void, on=keys, how="outer")
    counts = ["n", "sessions", "void"]
    joined[counts] = joined[counts].astype("Float64").fillna(0).astype(int)
    return joined.sort_values(keys, ignore_index=True)


def _summary(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> dict[str, float | int]:
    if (values <= 0).any():  # no logarithm: the median, and no interval is claimed
        return {"value": float(np.median(values)), "low": np.nan, "high": np.nan, "n": len(values)}
    logs = np.log(values)
    low = high = np.nan
    if len(logs) >= 2:
        reach = stats.t.ppf((1 + LEVEL) / 2, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
        low, high = float(np.exp(logs.mean() - reach)), float(np.exp(logs.mean() + reach))
    return {"value": float(np.exp(logs.mean())), "low": low, "high": high, "n": len(values)}
