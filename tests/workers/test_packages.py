"""The farm's own pip: what it is given beside the index."""

from pathlib import Path

from workers.packages import Pip


def test_wheels_that_set_up_makes_anew_are_another_choice(tmp_path: Path) -> None:
    pip, folder = Pip(tmp_path), tmp_path / "cache" / "wheels"
    assert pip.made_here() == {}
    folder.mkdir(parents=True)
    (folder / "lock-digest").write_text("…")
    (folder / "one-1-py3-none-any.whl").write_text("made once")
    before = pip.made_here()
    (folder / "one-1-py3-none-any.whl").write_text("made again")
    assert list(before) == list(pip.made_here()) == ["one-1-py3-none-any.whl"]
    assert before != pip.made_here()
