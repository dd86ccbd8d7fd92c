"""A scenario that changed needs a new version, or somebody's signature that no figure changes."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from scenarios import versions
from scenarios.registry import SCENARIOS
from scenarios.strict import parse_toml, read_toml
from scenarios.versions import NoEffect, Recorded

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
    ],
)
def test_what_decides_a_figure_changes_the_digest(checkout: Path, file: str, text: str, changes: bool) -> None:
    before = versions.digest_of(checkout, "boot")
    (checkout / file).write_text(text)
    assert (versions.digest_of(checkout, "boot") != before) is changes


RECORDED = Recorded({"boot": {"1": "aaaa", "2": "bbbb"}})


@pytest.mark.parametrize(
    ("version", "digest", "complaint"),
    [
        (2, "bbbb", None),
        (2, "cccc", "boot: its code, or the agent's or guest's, is not that of version 2"),
        (1, "bbbb", "is not that of version 1"),
        (3, "cccc", "version 3 is not in scenarios/versions.toml"),
    ],
)
def test_a_changed_scenario_is_refused(version: int, digest: str, complaint: str | None, tmp_path: Path) -> None:
    lines = versions.check(RECORDED, {"boot": (version, digest)}, tmp_path / "signers")
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
    key, signers = tmp_path / "key", tmp_path / "signers"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True, timeout=20)
    signers.write_text(f"ann {key.with_suffix('.pub').read_text()}")
    entry = NoEffect("boot", 2, "bbbb", "cccc", "a variable renamed", "s17", "ann", "nothing")
    arguments = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", versions.NAMESPACE]
    signed = subprocess.run(
        arguments, input=entry.statement, text=True, capture_output=True, check=True, timeout=20
    ).stdout

    def complaints(one: NoEffect) -> list[str]:
        return versions.check(replace(RECORDED, no_effect=(one,)), {"boot": (2, "cccc")}, signers)

    good = replace(entry, signature=signed)
    assert complaints(good) == []
    for spoilt in (
        entry,
        replace(good, reason="nothing at all"),
        replace(good, signer="bob"),
        replace(good, session="s18"),
    ):
        assert "is not signed" in complaints(spoilt)[0]
    assert "is not signed" in complaints(replace(good, new="dddd"))[0], "a signature holds for one change only"
    assert (
        "is not that of version 2"
        in versions.check(replace(RECORDED, no_effect=(good,)), {"boot": (2, "dddd")}, signers)[0]
    )


def test_every_scenario_of_this_house_is_as_recorded() -> None:
    recorded = read_toml(versions.CHECKOUT / "scenarios/versions.toml", Recorded)
    assert (
        versions.check(recorded, versions.present(versions.CHECKOUT), versions.CHECKOUT / "scenarios/no-effect.signers")
        == []
    )
    assert set(recorded.digest) == set(SCENARIOS)
