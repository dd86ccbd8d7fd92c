"""Unequal losses: Fisher's exact test, which needs no large numbers."""

from scipy.stats import fisher_exact


def unequal_p(lost: int, of: int, others_lost: int, others: int) -> float:
    """P value of losing `lost` of `of` where the others lost `others_lost` of `others`, two-sided."""
    return float(fisher_exact([[lost, of - lost], [others_lost, others - others_lost]]).pvalue)
