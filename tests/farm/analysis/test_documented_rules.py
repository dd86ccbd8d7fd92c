"""`docs/why/judgement.md` states the constants of the judgement; they are the code's."""

import re

import pytest

from farm.analysis import rules
from farm.settings import CHECKOUT

TEXT = (CHECKOUT / "docs" / "why" / "judgement.md").read_text(encoding="utf-8")
STATED = dict(re.findall(r"^\| `([A-Z_]+)` \| ([0-9.]+) \|", TEXT, re.MULTILINE))
DEFINED = {name: value for name, value in vars(rules).items() if name.isupper() and name != "ANALYSIS_VERSION"}


def test_every_constant_is_stated() -> None:
    assert STATED.keys() == DEFINED.keys()


@pytest.mark.parametrize("name", sorted(DEFINED))
def test_the_stated_value_is_the_codes(name: str) -> None:
    assert float(STATED[name]) == DEFINED[name]
