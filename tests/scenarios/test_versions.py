"""A scenario that changed needs a new version, or somebody's signature that no figure changes."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from scenarios import versions
from scenarios.registry import SCENARIOS
from scenarios.strict import parse_toml, read_toml
from scenarios.versions import NoEffect, Recorded
from tests.helpers.repositories import Repository

BOOT = '"""Boot."""\nfrom scenarios.helping import wait\n\n\ndef measure():\n    """Measure."""\n    return wait(1)\n'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "workers/guest").mkdir(parents=True)
    (tmp_path / "scenarios/boot.py").write_text(BOOT)
    (tmp_path / "scenarios/helping.py").write_text("def wait(s):\n    return s\n")
    (tmp_path / "workers/agent.py").write_text("PORT = 1\n")
    (tmp_path / "workers/guest/init.c").write_text("int main;\n")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "text", "changes"),
    [
        ("scenarios/boot.py", BOOT.replace("wait(1)", "wait(2)"), True),
        ("scenarios/boot.py", BOOT.replace("Measure.", "Measure it.") + "# said better\n", False),
        ("scenarios/helping.py", "def wait(s):\n    return 2 * s\n", True),
        ("scenarios/other.py", "x = 1\n", False),
        ("workers/agent.py", "PORT = 2\n", True),
        ("workers/guest/init.c", "int main ;\n", True),
        ("workers/bundle.py", "x = 1\n", False),
        ("scenarios/contract.py", "class Style:\n    cap_mib: int = 1\n", True),
        ("scenarios/contract.py", "class Style:\n    cap_mib: int\n", False),
    ],
)
def test_what_decides_a_figure_changes_the_digest(checkout: Path, file: str, text: str, changes: bool) -> None:
    before = versions.digest_of(checkout, "boot")
    (checkout / file).write_text(text)
    assert (versions.digest_of(checkout, "boot") != before) is changes


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("scenarios/boot.py", "boot: its own code is not as in version 1"),
        ("workers/agent.py", "boot: the code on hosts is not as in version 1"),
        ("workers/guest/init.c", "boot: the guest is not as in version 1"),
    ],
)
def test_a_refusal_says_what_changed(checkout: Path, file: str, told: str) -> None:
    recorded = Recorded({"boot": {"1": versions.digest_of(checkout, "boot")}})
    (checkout / file).write_text("x = 3\n")
    (line,) = versions.check(recorded, {"boot": (1, versions.digest_of(checkout, "boot"))}, checkout)
    assert line.startswith(told)


def test_what_was_recorded_is_found_in_the_history_though_somebody_edits_it(tmp_path: Path) -> None:
    checkout = tmp_path / "clone"
    repository = Repository(checkout)
    (checkout / "scenarios").mkdir()

    def record(digest: str) -> str:
        text = f'digest.boot.1 = "{digest}"\ndigest.boot.2 = "eeee"\n'
        (checkout / "scenarios/versions.toml").write_text(text)
        repository.git("add", "scenarios")
        return repository.commit(digest)

    record("before anything was released")
    base = record("aaaa")
    record("bbbb")
    now = Recorded({"boot": {"1": "bbbb"}})
    told = {line for then in versions.earlier(checkout, base) for line in versions.rewritten(now, then)}
    assert told == {
        "boot: what was recorded for version 1 may not be edited: raise 'version' instead",
        "boot: what was recorded for version 2 may not be edited: raise 'version' instead",
    }
    assert versions.earlier(checkout, "0" * 40) == [], "a clone that does not go back so far"


RECORDED = Recorded({"boot": {"1": "scenario=aaaa", "2": "scenario=bbbb"}})


@pytest.mark.parametrize(
    ("version", "digest", "complaint"),
    [
        (2, "scenario=bbbb", None),
        (2, "scenario=cccc", "boot: its own code is not as in version 2"),
        (1, "scenario=bbbb", "is not as in version 1"),
        (3, "scenario=cccc", "version 3 is not in scenarios/versions.toml"),
    ],
)
def test_a_changed_scenario_is_refused(version: int, digest: str, complaint: str | None, tmp_path: Path) -> None:
    lines = versions.check(RECORDED, {"boot": (version, digest)}, tmp_path)
    assert len(lines) == (complaint is not None)
    assert complaint is None or complaint in lines[0]


def test_recording_adds_and_never_changes() -> None:
    text = 'digest.boot.1 = "aaaa"\n'
    recorded = parse_toml(text, Recorded, source="versions.toml")
    added = versions.with_new_versions(text, recorded, {"boot": (2, "bbbb"), "cow_start": (1, "dddd")})
    again = parse_toml(added, Recorded, source="versions.toml")
    assert again.digest == {"boot": {"1": "aaaa", "2": "bbbb"}, "cow_start": {"1": "dddd"}}
    assert versions.with_new_versions(added, again, {"boot": (2, "changed")}) == added


def test_only_a_signers_word_lets_a_change_keep_its_version(tmp_path: Path) -> None:
    """What else an entry needs, tests/farm/test_no_effect.py asks."""
    key, signers = tmp_path / "key", tmp_path / "scenarios/no-effect.signers"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True, timeout=20)
    signers.parent.mkdir()
    signers.write_text(f"ann {key.with_suffix('.pub').read_text()}")
    digests = "scenario=bbbb", "scenario=cccc"
    entry = NoEffect("boot", 2, *digests, "a variable renamed", "s17", "e" * 64, "ann", "nothing")
    arguments = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", versions.NAMESPACE]
    signed = subprocess.run(
        arguments, input=entry.statement, text=True, capture_output=True, check=True, timeout=20
    ).stdout

    def complaint(one: NoEffect) -> str:
        (line,) = versions.check(replace(RECORDED, no_effect=(one,)), {"boot": (2, "scenario=cccc")}, tmp_path)
        return line

    good = replace(entry, signature=signed)
    assert "docs/no-effect/s17-boot.json is not there" in complaint(good)
    for spoilt in (
        entry,
        replace(good, reason="nothing at all"),
        replace(good, signer="bob"),
        replace(good, session="s18"),
        replace(good, evidence="f" * 64),
        replace(good, new="scenario=dddd"),
    ):
        assert "is not signed" in complaint(spoilt)


def test_every_scenario_of_this_house_is_as_recorded() -> None:
    recorded = read_toml(versions.CHECKOUT / "scenarios/versions.toml", Recorded)
    assert versions.check(recorded, versions.present(versions.CHECKOUT), versions.CHECKOUT) == []
    assert set(recorded.digest) == set(SCENARIOS)
