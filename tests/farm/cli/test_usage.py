"""What is asked wrongly ends with exit status 2 and one line that says what to do, and changes nothing."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.cli.__main__ import build_parser, main
from farm.settings import CHECKOUT

REPOSITORY = '[[repository]]\nname = "x"\nurl = "nowhere"\n'


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    monkeypatch.setenv("FARM_HOME", str(folder))
    monkeypatch.delenv("SETTINGS", raising=False)
    return folder


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def make_up(home: Path) -> None:
    """A home that looks set up."""
    (home / "venv" / "bin").mkdir(parents=True)
    (home / "venv" / "bin" / "python").touch()


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on standard error."""
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.err.startswith("farm: ")
    assert told.err.count("\n") == 1
    return told.err.strip()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("poll_intervall_s = 3", "poll_intervall_s is unknown (did you mean 'poll_interval_s'?)"),
        ('[[repository]]\nname = "x"', "repository[0].url is missing"),
        ('[campaign]\nblocks = "many"', "campaign.blocks must be a list"),
        ('clusters = ["akorn"]', "'akorn' is not in"),
        ('inventory = "nowhere"', "no such folder of cluster files"),
        ('[[scenario]]\nname = "boots"', "scenario 'boots' does not exist (did you mean 'boot'? there are: boot, "),
        ('database = "nosuch://x"', "nosuch:// is not supported, write postgresql://… or sqlite:///FILE"),
        ('database = "postgres://u:secret@x/y"', "postgres:// is not supported, write postgresql://… or sqlite"),
        ('database = "postgresql+nosuch://x/y"', "database: the URL cannot be used: "),
        ('database = "postgresql+pg8000://x/y"', "this driver is yours to install into the venv"),
        (f'{REPOSITORY}clusters = ["acorn"]', "unknown; write 'clusters' above the first [[…]] or […] of the file"),
        ('[campaign]\ndatabase = "x"', "write 'database' above the first [[…]] or […] of the file"),
        ("[addresses]\nsite_port = 9000\nworker_port = 9000", "the ports 9000, 8011, 9000 must differ"),
        ("[[", "not valid TOML"),
        ('[nightly]\nsweeps = ["upload-paralel"]', "no sweep 'upload-paralel' (did you mean 'upload-parallel'"),
        (REPOSITORY + 'stack = "swfit"', "there is no stack 'swfit' (did you mean 'swift'? there are: "),
        ("poll_interval_s = 0", "poll_interval_s = 0 must be above 0"),
        ("[campaign]\nhistory = 0", "history and session_deadline_s must be at least 1"),
        ("[campaign]\nsession_deadline_s = -5", "history and session_deadline_s must be at least 1"),
        (REPOSITORY + REPOSITORY, "repository 'x' is there twice"),
        ('[[scenario]]\nname = "boot"\n' * 2, "scenario 'boot' is asked twice in the same way"),
        (
            '[[scenario]]\nname = "boot"\n[[scenario]]\nname = "boot"\nparams = { vcpus = 0 }',
            "asked twice in the same way",
        ),
        ('[[scenario]]\nname = "boot"\nparams = { vcpus = 99 }', "vcpus = 99 must be a whole number from "),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, told: str) -> None:
    file = tmp_path / "farm.toml"
    file.write_text(text)
    line = refusal(capsys, "--settings", str(file), "status")
    assert told in line
    assert "secret" not in line


def test_settings_without_a_repository_start_nothing(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "farm.toml"
    file.write_text("poll_interval_s = 1")
    assert "watches no repository" in refusal(capsys, "--settings", str(file), "up", "--once")
    assert not home.exists()


@pytest.mark.parametrize("arguments", [("session", "run"), ("up",), ("up", "--once")])
def test_without_a_cluster_nothing_is_asked_or_started(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    (tmp_path / "none").mkdir()
    file = tmp_path / "farm.toml"
    file.write_text(f'inventory = "none"\n{REPOSITORY}')
    assert f"no cluster in {tmp_path / 'none'}: " in refusal(capsys, "--settings", str(file), *arguments)
    assert not home.exists()


@pytest.mark.parametrize("how", [(), ("--once",), ("--attach",)])
def test_a_home_that_was_never_set_up_starts_nothing(
    home: Path, capsys: pytest.CaptureFixture[str], how: tuple[str, ...]
) -> None:
    assert f"run FARM_HOME={home} ./setup.sh first" in refusal(capsys, "up", *how)
    assert not home.exists()


def test_a_taken_port_is_named_with_its_setting(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str], taken_port: int
) -> None:
    file = tmp_path / "farm.toml"
    make_up(home)
    file.write_text(f"{REPOSITORY}[addresses]\nbuildbot_port = {taken_port}\n")
    told = refusal(capsys, "--settings", str(file), "up", "--once")
    assert str(taken_port) in told
    assert "addresses.buildbot_port" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("compare", "acorn"), "name two clusters"),
        (("compare", "acorn", "oak"), "no cluster 'oak' (there are: acorn, birch)"),
        (("results", "--cluster", "oak"), "no cluster 'oak'"),
        (("results", "--revision", "abc"), "'abc' is no check-in"),
        (("results", "--cluster", "brich"), "no cluster 'brich' (did you mean 'birch'? there are: acorn, birch)"),
        (("results", "--scenario", "bot"), "scenario 'bot' does not exist (did you mean 'boot'? there are: boot, "),
        (("results", "--metric", "answer"), "there is no metric 'answer': did you mean 'answer_ms'"),
        (("results", "--scenario", "boot", "--metric", "goodput_mib_s"), "'boot' has no metric 'goodput_mib_s'"),
        (
            ("results", "--repository", "exmaple"),
            "no repository 'exmaple' (did you mean 'example'? there are: example)",
        ),
        (("results", "--session", "abc"), "'abc' is no session"),
        (("session", "list", "--state", "lost"), "no state 'lost' (there are: queued, reserved, running, "),
        (("session", "list", "--cluster", "oak"), "no cluster 'oak'"),
        (("session", "show", "abc"), "'abc' is no session"),
        (("session", "cancel", "abc"), "'abc' is no session"),
        (("session", "evidence", "abc", "dance"), "no scenario 'dance' (there are: boot, "),
        (("session", "evidence", "abc", "boot"), "abc is no A/A session that brought back a bundle"),
        (("session", "run", "--repository", "mine"), "name a watched repository"),
        (("session", "run"), "does not answer"),
        (("--settings", "/nowhere/farm.toml", "status"), "cannot be read"),
    ],
)
def test_commands_that_cannot_be_carried_out_say_why(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    assert told in refusal(capsys, *arguments)


@pytest.mark.parametrize(
    "command", ["up", "down", "status", "session", "results", "compare", "regressions", "cluster", "stack", "publish"]
)
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args([command, "--help"])
    assert ended.value.code == 0
    assert len(capsys.readouterr().out) > 100


@pytest.mark.parametrize("command", ["--help", "session list", "status", "regressions", "compare", "stack list"])
def test_what_does_not_analyse_loads_nothing_that_does(command: str) -> None:
    main(["session", "list"])  # makes the database: migrations are loaded when there is one to do
    program = "import atexit, sys\natexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    program += "from farm.cli.__main__ import main\nmain(sys.argv[1:])"
    told = subprocess.run(
        [sys.executable, "-c", program, *command.split()], cwd=CHECKOUT, capture_output=True, text=True, timeout=60
    )
    loaded = {name.partition(".")[0] for name in told.stderr.split()}
    assert "farm" in loaded
    assert not loaded & {"alembic", "buildbot", "jinja2", "matplotlib", "numpy", "pandas", "scipy", "twisted"}


def test_hosts_that_the_farm_makes_itself_need_no_look_beforehand(capsys: pytest.CaptureFixture[str]) -> None:
    told = refusal(capsys, "cluster", "check", str(CHECKOUT / "inventory" / "acorn.toml"))
    assert "only machines through ssh can be looked at beforehand" in told
