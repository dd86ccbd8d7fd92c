"""A stack.toml is looked at before it is checked in."""

import json
from pathlib import Path

import pytest

from farm.cli.__main__ import main
from tests.helpers.check_ins import EXAMPLE, recipe

NEEDY = '[[component]]\nname = "mine"\nneeds = ["swift"]\nsource = { debian = "mine=1.0" }\n'


def test_the_examples_recipe_is_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stack", "check", str(EXAMPLE / "stack.toml")]) == 0
    assert "is in order: stack 'example', swift (swift==2.38.3)" in capsys.readouterr().out
    assert main(["stack", "check", "--json", str(EXAMPLE / "stack.toml")]) == 0
    assert json.loads(capsys.readouterr().out)["guest"]["vcpus"] == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (recipe(rest="[guest]\nmemory_mb = 64\n"), "guest.memory_mb is unknown (did you mean 'memory_mib'?)"),
        (recipe(rest=NEEDY), "component[1].needs is unknown"),
        (
            recipe(rest=NEEDY.replace('needs = ["swift"]\n', "")),
            "'mine' must have 'pypi' or 'git' or 'path', not 'debian'",
        ),
        (recipe(), "its lock 'lock.txt' is not beside it"),
        ("lock =", "not valid TOML"),
    ],
)
def test_a_bad_one_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    file = tmp_path / "stack.toml"
    file.write_text(text)
    assert main(["stack", "check", str(file)]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


def test_the_recipes_of_the_house_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stack", "list"]) == 0
    assert "swift" in capsys.readouterr().out
