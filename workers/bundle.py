"""A session's bundle: samples, limits, facts, logs and a signed manifest, packed into one file."""

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from scenarios.crossing import Manifest, Probe, Sample, canonical_json, to_data

SIGNATURE_NAMESPACE = "farm-bundle"
_SIGN_TIMEOUT_S = 30


class BundleWriter:
    """Collects the bundle in `folder`, line by line, so that nothing waits in memory for a crash."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "logs").mkdir(parents=True)
        self._samples = (folder / "samples.jsonl").open("w", encoding="utf-8")
        self._limits = (folder / "limits.jsonl").open("w", encoding="utf-8")

    def add_samples(self, samples: list[Sample]) -> None:
        for sample in samples:
            self._samples.write(canonical_json(to_data(sample)) + "\n")
        self._samples.flush()

    def add_probes(self, probes: list[Probe]) -> None:
        for probe in probes:
            self._limits.write(canonical_json(to_data(probe)) + "\n")
        self._limits.flush()

    def add_log(self, name: str, text: str) -> None:
        """Keep a text under `logs/`; `name` is a plain file name."""
        with (self.folder / "logs" / name).open("a", encoding="utf-8", errors="replace") as log:
            log.write(text if text.endswith("\n") or not text else text + "\n")

    def add_facts(self, facts: Any) -> None:
        (self.folder / "facts.json").write_text(json.dumps(to_data(facts), indent=1, sort_keys=True))

    def digests(self) -> dict[str, str]:
        """SHA-256 of every file so far, by path inside the bundle."""
        self._samples.flush()
        self._limits.flush()
        files = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        return {str(path.relative_to(self.folder)): _sha256(path) for path in files}

    def seal(self, manifest: Manifest, key: Path, out: Path) -> None:
        """Write and sign the manifest, pack everything into `out` (gzipped tar), whole or not at all."""
        self._samples.close()
        self._limits.close()
        path = self.folder / "manifest.json"
        path.write_text(canonical_json(to_data(manifest)))
        sign(path, key)
        part = out.with_name(out.name + ".part")
        with tarfile.open(part, "w:gz", compresslevel=6) as tar:
            for file in sorted(self.folder.rglob("*")):
                if file.is_file():
                    tar.add(file, arcname=str(file.relative_to(self.folder)), filter=_anonymous)
        part.replace(out)


def sign(path: Path, key: Path) -> None:
    """Sign `path` with an ssh private key; the signature lands beside it as `<path>.sig`."""
    subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", SIGNATURE_NAMESPACE, str(path)],
        check=True,
        capture_output=True,
        timeout=_SIGN_TIMEOUT_S,
    )


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
