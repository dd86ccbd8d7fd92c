"""Whoever has nothing but the site can check who signed a bundle, and finds no private key there."""

import dataclasses
import datetime
import html
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from farm.inventory import SigningKey
from tests.helpers.bundles import make_key, signature_of
from tests.reports.conftest import START


def test_the_command_on_a_sessions_page_checks_its_signature(farm: Any, tmp_path: Path) -> None:
    site = _signed_site(farm)
    folder = _downloaded(site, tmp_path)
    done = _run_the_command(site, folder)
    assert done.returncode == 0, done.stderr
    assert 'Good "farm-bundle" signature for acorn' in done.stdout

    (folder / "manifest.json").write_text("{}")
    assert _run_the_command(site, folder).returncode != 0


def test_a_key_that_has_ended_still_checks_what_came_before_its_end(farm: Any, tmp_path: Path) -> None:
    until = START + datetime.timedelta(days=30)
    inventory = {**farm.inventory, "acorn": _with_key(farm, SigningKey(file="keys/acorn.pub", valid_until=until))}
    site = _signed_site(dataclasses.replace(farm, inventory=inventory))
    folder = _downloaded(site, tmp_path)
    assert _run_the_command(site, folder).returncode == 0
    late = f"verify-time={until + datetime.timedelta(days=1):%Y%m%d%H%M%SZ}"
    assert _run_the_command(site, folder, late).returncode != 0


def test_another_clusters_key_does_not_pass_for_this_one(farm: Any, tmp_path: Path) -> None:
    site = _signed_site(farm, signer="birch")
    assert _run_the_command(site, _downloaded(site, tmp_path)).returncode != 0


def test_keys_of_public_clusters_are_published_and_nothing_private(farm: Any) -> None:
    for name in ("acorn", "birch"):
        make_key(farm.settings.home / "keys" / name)
    private = (farm.settings.home / "keys" / "acorn").read_text()
    secrets = [line for line in private.splitlines() if not line.startswith("-")]
    (farm.settings.home / "keys" / "oneline").write_text(f"ssh-ed25519 {''.join(secrets)}\n")
    mistaken = dataclasses.replace(
        farm.inventory["acorn"], signing_key=(SigningKey(file="keys/acorn"), SigningKey(file="keys/oneline"))
    )
    kept = dataclasses.replace(farm.inventory["birch"], publish=False)
    first = (farm.publish() / "data" / "allowed_signers").read_text()
    assert re.fullmatch(r'(acorn|birch) namespaces="farm-bundle" ssh-ed25519 \S+\n' * 2, first)

    site = dataclasses.replace(farm, inventory={"acorn": mistaken, "birch": kept}).publish()
    assert (site / "data" / "allowed_signers").read_text() == ""
    everything = "".join(path.read_text(errors="replace") for path in site.rglob("*") if path.is_file())
    assert not any(secret in everything for secret in secrets if len(secret) > 20)


def test_a_new_key_is_published_though_nothing_else_is_new(farm: Any) -> None:
    assert (farm.publish() / "data" / "allowed_signers").read_text() == ""
    make_key(farm.settings.home / "keys" / "acorn")
    assert (farm.publish() / "data" / "allowed_signers").read_text().startswith("acorn ")


def _with_key(farm: Any, key: SigningKey) -> Any:
    return dataclasses.replace(farm.inventory["acorn"], signing_key=(key,))


def _signed_site(farm: Any, signer: str = "acorn") -> Path:
    for name in ("acorn", "birch"):
        make_key(farm.settings.home / "keys" / name)
    farm.see_check_ins()
    bundle = farm.settings.bundles_dir / f"{farm.measure('acorn', 0)}-1"
    signature = signature_of((bundle / "manifest.json").read_bytes(), farm.settings.home / "keys" / signer)
    (bundle / "manifest.json.sig").write_bytes(signature)
    site: Path = farm.publish()
    return site


def _downloaded(site: Path, tmp_path: Path) -> Path:
    """What the page tells to put into one folder, and nothing else."""
    folder = tmp_path / "downloaded"
    folder.mkdir()
    for name in ("bundles/acorn0/manifest.json", "bundles/acorn0/manifest.json.sig", "allowed_signers"):
        shutil.copy(site / "data" / name, folder)
    return folder


def _run_the_command(site: Path, folder: Path, time: str | None = None) -> subprocess.CompletedProcess[str]:
    page = (site / "sessions" / "acorn0.html").read_text()
    (command,) = re.findall(r"ssh-keygen -Y verify [^\n]*?(?=</pre>)", page)
    told = re.sub(r"verify-time=\w+", time, html.unescape(command)) if time else html.unescape(command)
    return subprocess.run(["sh", "-c", told], cwd=folder, capture_output=True, text=True, timeout=30, check=False)
