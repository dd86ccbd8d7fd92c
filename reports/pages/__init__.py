"""One module for each kind of page: material in, pages out. No page reads the database or writes a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Page:
    """A page to be rendered: its path in the site, its template and what the template shows."""

    path: str
    template: str
    section: str
    content: Mapping[str, Any]
