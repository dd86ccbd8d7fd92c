"""What clusters have on this machine, whose worker measures them: their signing keys, and what is taken down.

A session's worker brings its cluster up; taking it down is the farm's, when it ends. Both go through
`python -m workers`, as everything does that touches a host.
"""

import json
import os
import subprocess
import sys

from farm.cli.context import Context
from farm.cli.errors import UsageError
from farm.settings import CHECKOUT
from scenarios.crossing import to_data

_PATIENCE_S = 60  # for a session that was told to end, which sweeps first
_DOWN_TIMEOUT_S = _PATIENCE_S + 60
_KEYGEN_TIMEOUT_S = 30


def make_keys(context: Context) -> None:
    """Make the key pair that a cluster's worker signs with, where the inventory names its file."""
    for cluster in context.inventory.values():
        for key in cluster.signing_key:
            public = context.settings.home / key.file
            if not key.file or public.exists():
                continue
            public.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            private = public.with_suffix("")
            private.unlink(missing_ok=True)  # half of a pair, from a run that was killed
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", cluster.name, "-f", str(private)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_KEYGEN_TIMEOUT_S, check=False)
            if done.returncode:
                raise UsageError(f"ssh-keygen could not make {private}: {done.stderr.strip()}")


def take_down(context: Context) -> list[str]:
    """Take clusters down as far as this machine made them; returns one line for each that has to stay, and why."""
    refusals = []
    for cluster in context.inventory.values():
        if not (context.settings.home / "clusters" / cluster.name).exists():
            continue
        command = [sys.executable, "-m", "workers", "hosts", "down", "--home", str(context.settings.home)]
        command += ["--cluster", json.dumps(to_data(cluster.planned)), "--patience", str(_PATIENCE_S)]
        try:
            done = subprocess.run(
                command,
                cwd=CHECKOUT,
                env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
                capture_output=True,
                text=True,
                timeout=_DOWN_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            refusals.append(f"cluster {cluster.name}: did not go down within {_DOWN_TIMEOUT_S} s")
            continue
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason was told"])[-1]
            refusals.append(f"cluster {cluster.name} stays up: {last}")
    return refusals
