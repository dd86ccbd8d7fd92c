"""The recipes in stacks/, and the repositories of components that are deployed by them."""

from pathlib import Path

import pytest

from farm import stacks
from farm.campaigns import merge_builds
from farm.settings import RepositorySettings, load_settings
from scenarios.recipe import Recipe
from scenarios.strict import BadData, from_data

COMMIT = "ab" * 20
LIBVIRT = """
[[component]]
name = "swift"
source = { pypi = "swift==2.38.3" }
[[component]]
name = "libvirt"
source = { debian = "libvirt-daemon=9.0.0-4+deb12u2" }
[guest]"""


def test_every_recipe_of_this_house_is_one() -> None:
    assert "swift" in stacks.names()
    for name in stacks.names():
        recipe, lock = stacks.load(name)
        assert recipe.stack.name == name
        assert recipe.lock is None or lock


def test_a_check_in_of_a_component_is_deployed_by_its_stacks_recipe() -> None:
    repository = RepositorySettings("upstream", "https://git.example/swift", stack="swift")
    (build,) = merge_builds(repository, [(COMMIT, "subject"), (COMMIT, "canary")])
    assert build.recipe is not None
    recipe = from_data(build.recipe, Recipe, source="plan")
    (component,) = [one for one in recipe.component if one.name == "swift"]
    assert (component.source.git, component.source.commit) == ("https://git.example/swift", COMMIT)
    assert build.lock is not None
    assert "eventlet==" in build.lock
    assert merge_builds(RepositorySettings("mine", "/srv/mine"), [(COMMIT, "subject")])[0].recipe is None


def test_a_component_that_is_of_no_repository_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (stacks.FOLDER / "external.toml").read_text().replace("external", "swift").replace("[guest]", LIBVIRT)
    (tmp_path / "with-libvirt.toml").write_text(text)
    monkeypatch.setattr(stacks, "FOLDER", tmp_path)
    stacks.check("with-libvirt", "swift")
    with pytest.raises(BadData, match="'libvirt' is of no repository: it must have 'debian'"):
        stacks.check("with-libvirt", "libvirt")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("stack = 'swfit'", "there is no stack 'swfit'"),
        ("stack = 'swift'\ncomponent = 'nova'", "stack 'swift' has no component 'nova'"),
        ("component = 'swift'", "is of no stack"),
    ],
)
def test_what_cannot_be_deployed_is_refused_with_the_settings(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "farm.toml"
    file.write_text(f"[[repository]]\nname = 'mine'\nurl = 'mine'\n{text}\n")
    with pytest.raises(BadData, match=told):
        load_settings(file, tmp_path)
