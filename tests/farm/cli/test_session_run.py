"""`farm session run` queues what was asked for, with the scenarios and blocks that were asked for, or refuses in one line."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from farm.cli.__main__ import main
from farm.results import queries
from farm.results.database import open_database
from farm.results.queries import EVERYTHING
from scenarios import sweeps


@pytest.fixture
def settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A farm that watches a repository of two check-ins."""
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SETTINGS", raising=False)
    repository = tmp_path / "repository"
    author = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
    subprocess.run(["git", "init", "-q", "-b", "main", str(repository)], check=True, timeout=30)
    for message in ("one", "two"):
        command = ["git", "-C", str(repository), *author, "commit", "-q", "--allow-empty", "-m", message]
        subprocess.run(command, check=True, timeout=30)
    file = tmp_path / "farm.toml"
    file.write_text(f'[[repository]]\nname = "mine"\nurl = "{repository}"\n')
    return file


def run(settings_file: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert main(["--settings", str(settings_file), "session", "run", "--json", *arguments]) == 0
    answer: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return answer


def scenarios_of(settings_file: Path, session: str) -> list[dict[str, Any]] | None:
    engine = open_database(f"sqlite:///{settings_file.parent / 'home' / 'farm.sqlite'}")
    row = queries.session(engine, EVERYTHING, session)
    assert row is not None
    return row.scenarios


def test_an_ordinary_campaign_asks_what_the_settings_say(
    settings_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queued = run(settings_file, capsys, "--cluster", "birch")
    assert [one["blocks"] for one in queued] == [1, 2, 2]
    assert scenarios_of(settings_file, queued[0]["id"]) is None


def test_a_quick_session_is_one_block_of_the_chosen_scenario(
    settings_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (queued,) = run(settings_file, capsys, "--cluster", "birch", "--quick", "--scenario", "boot")
    assert queued["blocks"] == 1
    asked = scenarios_of(settings_file, queued["id"])
    assert asked is not None
    assert [one["name"] for one in asked] == ["boot"]


def test_a_sweep_is_one_session_with_every_combination(settings_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (queued,) = run(settings_file, capsys, "--cluster", "birch", "--sweep", "upload-parallel")
    sweep = sweeps.load("upload-parallel")
    assert (queued["purpose"], queued["blocks"], queued["base_revision"]) == ("sweep", sweep.blocks, None)
    asked = scenarios_of(settings_file, queued["id"])
    assert asked is not None
    assert [one["params"] for one in asked] == [cell.params for cell in sweep.cells]


def test_an_aa_campaign_deploys_the_canary_beside_itself(
    settings_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queued = run(settings_file, capsys, "--cluster", "birch", "--aa", "--scenario", "boot")
    assert [(one["purpose"], one["blocks"]) for one in queued] == [("a/a", 1), ("a/a", 2), ("a/a", 2)]
    engine = open_database(f"sqlite:///{settings_file.parent / 'home' / 'farm.sqlite'}")
    row = queries.session(engine, EVERYTHING, queued[0]["id"])
    assert row is not None
    again, canary = row.builds
    first = queries.check_ins(engine, EVERYTHING)[0]
    assert again["commit"] == canary["commit"] == first.commit
    assert (canary["revision"], set(canary["roles"])) == (first.revision, {"base", "canary"})
    assert (again["roles"], again["label"]) == (["subject"], f"{canary['label']} (again)")
    assert (row.revision, row.base_revision) == (again["revision"], canary["revision"])
    assert again["revision"] not in {one.revision for one in queries.check_ins(engine, EVERYTHING)}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--aa", "--sweep", "upload-parallel"), "leave out --revision, --base, --quick and --sweep"),
        (("--aa", "--base", "1c0ffee"), "leave out --revision, --base, --quick and --sweep"),
        (("--aa", "--quick"), "leave out --revision, --base, --quick and --sweep"),
        (("--sweep", "nothing"), "there is no sweep 'nothing'"),
        (("--sweep", "upload-parallel", "--quick"), "leave out --scenario, --quick and --base"),
        (("--scenario", "boots"), "scenario 'boots' does not exist"),
    ],
)
def test_what_cannot_be_asked_queues_nothing(
    settings_file: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    assert main(["--settings", str(settings_file), "session", "run", *arguments]) == 2
    assert told in capsys.readouterr().err
    assert main(["--settings", str(settings_file), "session", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_sweep_that_does_not_fit_its_deadline_is_refused(
    settings_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings_file.write_text(settings_file.read_text() + "[campaign]\nsession_deadline_s = 60\n")
    assert main(["--settings", str(settings_file), "session", "run", "--sweep", "upload-parallel"]) == 2
    assert "its session must end within 60 s: give it fewer values or blocks" in capsys.readouterr().err
