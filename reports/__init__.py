"""The public site: reads farm.results and farm.analysis, writes static pages and the raw data behind them."""

from reports.site import publish

__all__ = ["publish"]
