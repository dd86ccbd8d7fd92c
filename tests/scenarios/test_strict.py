"""Bad data is refused in one line that names the file, the key and the nearest right name."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenarios.recipe import Recipe
from scenarios.strict import BadData, from_data, parse_json, parse_toml


@dataclass(frozen=True)
class Wheel:
    spokes: int
    tyre: Literal["slick", "winter"] = "slick"


@dataclass(frozen=True)
class Car:
    name: str
    wheel: tuple[Wheel, ...] = ()
    weight_kg: float = 1.0
    note: str | None = None
    owners: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.weight_kg <= 0:
            raise ValueError("weight_kg must be above 0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('nam = "x"', "car.toml: nam is unknown (did you mean 'name'?)"),
        ("weight_kg = 2", "car.toml: name is missing"),
        ('name = "x"\nwheel = [{spokes = 3, tyre = "sl1ck"}]',
         "car.toml: wheel[0].tyre is 'sl1ck', not one of 'slick', 'winter' (did you mean 'slick'?)"),
        ('name = "x"\nwheel = [{}]', "car.toml: wheel[0].spokes is missing"),
        ("name = 3", "car.toml: name is 3, must be text"),
        ('name = "x"\nowners = [3]', "car.toml: owners[0] is 3, must be text"),
        ('name = "x"\nwheel = [{spokes = true}]', "car.toml: wheel[0].spokes is True, must be a whole number"),
        ('name = "x"\nweight_kg = 0', "car.toml: weight_kg must be above 0"),
        ("name = ", "car.toml: not valid TOML: Invalid value (at end of document)"),
    ],
)  # fmt: skip
def test_bad_toml_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(BadData) as refusal:
        parse_toml(text, Car, source="car.toml")
    assert str(refusal.value) == message


def test_good_data_becomes_the_dataclass() -> None:
    car = parse_toml('name = "x"\nweight_kg = 2\nowners = ["a"]\n[[wheel]]\nspokes = 3', Car, source="car.toml")
    assert car == Car("x", (Wheel(3),), 2.0, owners=["a"])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_data_makes_it_crash(data: Any) -> None:
    for shape in (Car, Recipe):
        try:
            made = from_data(data, shape, source="data")
        except BadData as refusal:
            refused = str(refusal)
            if "\n" in refused:
                pytest.fail(f"more than one line: {refused}")
        else:
            assert isinstance(made, shape)


def test_deep_json_is_refused() -> None:
    with pytest.raises(BadData, match="not valid JSON"):
        parse_json("[" * 100_000, Car, source="deep.json")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('[[component]]\nname = "swift"\nsource = { pypi = "swift>=2" }', "must be a pin"),
        ('[[component]]\nname = "swift"\nsource = { path = "../up" }', "must be a folder inside the repository"),
        ('[[component]]\nname = "x"\nsource = { path = "x" }', "needs a component named 'swift'"),
        ('[[component]]\nname = "swift"\nsource = { pypi = "swift==1" }\n[guest]\nmemory_mb = 1', "did you mean 'memory_mib'?"),
        ('[[component]]\nname = "swift"\nsource = { pypi = "swift==1" }\n[guest]\nkernel_arguments = "farm.nonce=x"', "must not set"),
        ('[[component]]\nname = "swift"\nsource = { pypi = "swift==1" }\n[guest]\nextra_modules = ["../x"]', "is not a folder"),
    ],
)  # fmt: skip
def test_recipes_that_reach_too_far_are_refused(line: str, told: str) -> None:
    with pytest.raises(BadData) as refusal:
        parse_toml(f'[stack]\nname = "s"\ndeployer = "swift"\n{line}', Recipe, source="stack.toml")
    assert told in str(refusal.value)
