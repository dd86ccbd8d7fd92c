"""Who signed a bundle: `ssh-keygen -Y verify` against the keys that the inventory lists for its cluster."""

import base64
import datetime
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from farm.inventory import Cluster, SigningKey
from farm.results.admission import Rejected

NAMESPACE = "farm-bundle"
_VERIFY_TIMEOUT_S = 20


def check_signature(
    manifest: Path,
    signature: Path,
    cluster: str,
    inventory: Mapping[str, Cluster],
    home: Path,
    now: datetime.datetime,
) -> None:
    """Check that `manifest` was signed with a key of `cluster` that is valid `now`; raises Rejected.

    The time is that of the arrival, since only we know it: whoever stole an old key could write any other.
    Keys given as files are read below `home`.
    """
    if cluster not in inventory:
        raise Rejected(f"cluster {cluster!r} is not in the inventory")
    keys = inventory[cluster].signing_key
    valid = [key for key in keys if _valid(key, now)]
    if _verifies(manifest, signature, cluster, _public_keys(valid, home)):
        return
    raise Rejected(_why_not(manifest, signature, cluster, inventory, home, now))


def allowed_signers(clusters: Iterable[Cluster], home: Path) -> str:
    """The clusters' public keys for everybody: `ssh-keygen`'s format, with the times in which each key is valid."""
    lines = []
    for cluster in clusters:
        for key in cluster.signing_key:
            # what is no public key is left out: a file that the inventory names by mistake may hold a private one
            public = filter(_is_public, _public_keys([key], home))
            lines += [f"{cluster.name} {_options(key)} {one}\n" for one in public]
    return "".join(lines)


def _options(key: SigningKey) -> str:
    times = (("valid-after", key.valid_from), ("valid-before", key.valid_until))
    told = [f'{name}="{_utc(time).astimezone(datetime.UTC):%Y%m%d%H%M%SZ}"' for name, time in times if time]
    return ",".join([f'namespaces="{NAMESPACE}"', *told])


def _is_public(key: str) -> bool:
    """Whether the body is the kind of key that stands before it, as in every public key of ssh and no private one."""
    kind, body = key.split()
    try:
        blob = base64.b64decode(body, validate=True)
    except ValueError:
        return False
    return blob[:4] == len(kind).to_bytes(4, "big") and blob[4 : 4 + len(kind)] == kind.encode()


def _why_not(
    manifest: Path,
    signature: Path,
    cluster: str,
    inventory: Mapping[str, Cluster],
    home: Path,
    now: datetime.datetime,
) -> str:
    own = list(_public_keys(inventory[cluster].signing_key, home))
    if not own:
        return f"no signing key of cluster {cluster!r} can be read: see its signing_key in the inventory"
    if _verifies(manifest, signature, cluster, own):
        return f"signed with a key of cluster {cluster!r} that is not valid at {now:%Y-%m-%d %H:%M} UTC"
    for name, other in inventory.items():
        if name != cluster and _verifies(manifest, signature, name, _public_keys(other.signing_key, home)):
            return f"signed with a key of cluster {name!r}, not of {cluster!r}"
    return f"the signature is not one of cluster {cluster!r} over this manifest"


def _valid(key: SigningKey, now: datetime.datetime) -> bool:
    return (key.valid_from is None or _utc(key.valid_from) <= now) and (
        key.valid_until is None or now < _utc(key.valid_until)
    )


def _utc(time: datetime.datetime) -> datetime.datetime:
    """A time without a zone in an inventory file is UTC."""
    return time if time.tzinfo else time.replace(tzinfo=datetime.UTC)


def _public_keys(keys: Iterable[SigningKey], home: Path) -> Iterator[str]:
    """Type and body of each key that can be read; options and comments are left out."""
    for key in keys:
        try:
            text = key.public or (home / key.file).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            continue
        words = text.split()
        if len(words) >= 2:
            yield f"{words[0]} {words[1]}"


def _verifies(manifest: Path, signature: Path, cluster: str, keys: Iterable[str]) -> bool:
    lines = [f'{cluster} namespaces="{NAMESPACE}" {key}\n' for key in keys]
    if not lines:
        return False
    with (
        tempfile.NamedTemporaryFile("w", prefix="farm-signers-", encoding="ascii") as allowed,
        manifest.open("rb") as text,
    ):
        allowed.writelines(lines)
        allowed.flush()
        arguments = ["-f", allowed.name, "-I", cluster, "-n", NAMESPACE, "-s", str(signature)]
        verified = subprocess.run(
            ["ssh-keygen", "-Y", "verify", *arguments],
            stdin=text,
            capture_output=True,
            timeout=_VERIFY_TIMEOUT_S,
            check=False,
        )
    return verified.returncode == 0
