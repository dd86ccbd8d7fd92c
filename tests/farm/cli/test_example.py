"""The example repository is the same everywhere, and every check-in of it is a valid recipe."""

import subprocess
from pathlib import Path

from farm.cli.example import make_example_repository
from scenarios.recipe import Recipe
from scenarios.strict import parse_toml


def git(repository: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(repository), *arguments], check=True, capture_output=True, text=True).stdout


def test_the_example_has_the_same_commits_wherever_it_is_made(tmp_path: Path) -> None:
    assert make_example_repository(tmp_path / "a")
    assert make_example_repository(tmp_path / "b")
    commits = git(tmp_path / "a", "rev-list", "main")
    assert commits == git(tmp_path / "b", "rev-list", "main")
    assert len(commits.split()) >= 4


def test_a_repository_that_is_there_is_left_alone(tmp_path: Path) -> None:
    make_example_repository(tmp_path / "a")
    (tmp_path / "a" / "mine").write_text("mine")
    assert not make_example_repository(tmp_path / "a")
    assert (tmp_path / "a" / "mine").read_text() == "mine"


def test_every_check_in_is_a_valid_recipe_and_the_plants_are_in_it(tmp_path: Path) -> None:
    make_example_repository(tmp_path / "a")
    recipes = []
    for commit in git(tmp_path / "a", "rev-list", "--reverse", "main").split():
        recipes.append(parse_toml(git(tmp_path / "a", "show", f"{commit}:stack.toml"), Recipe, source=commit))
    assert recipes[0] == recipes[1]
    assert len(recipes[2].guest.extra_modules) > len(recipes[1].guest.extra_modules)
    assert recipes[3].guest == recipes[1].guest
    assert (recipes[2].disk.cache, recipes[3].disk.cache) == ("writethrough", "none")
