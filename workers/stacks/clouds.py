"""Clouds that are there already, as the worker is let into them: the entries of `secrets/clouds.yaml` in FARM_HOME.

It is the file that OpenStack's own clients read. What is in it stays in the worker's process and goes to the cloud's
identity service alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from scenarios.contract import Failed
from workers.stacks.openstack_client import Login

FILE = Path("secrets", "clouds.yaml")
_APPLICATION = "v3applicationcredential"
_PASSWORD = ("password", "v3password")


def login_of(home: Path, cloud: str) -> Login:
    """How to log in to the cloud of this name. Raises Failed (farm), in one line and without any of the secrets."""
    file = home / FILE
    entry = _mapping(_mapping(_read(file), "clouds", file), cloud, file)
    auth, kind = _mapping(entry, "auth", file, cloud), entry.get("auth_type", "password")
    if kind not in (_APPLICATION, *_PASSWORD):
        raise Failed("farm", f"{file}: cloud {cloud}: auth_type {kind!r} is none of password, {_APPLICATION}")
    if entry.get("verify", True) is not True:
        raise Failed("farm", f"{file}: cloud {cloud}: 'verify' cannot be switched off: name its certificates in cacert")
    is_application = kind == _APPLICATION

    def text(key: str, fields: Mapping[str, Any] = auth) -> str:
        return _text(fields, key, f"{file}: cloud {cloud}")

    return Login(
        auth_url=_versioned(text("auth_url")),
        user=text("application_credential_id" if is_application else "username"),
        password=text("application_credential_secret" if is_application else "password"),
        project="" if is_application or "project_id" in auth else text("project_name"),
        region=text("region_name", entry) if "region_name" in entry else None,
        user_domain=_domain(auth, "user_domain", text),
        project_domain=_domain(auth, "project_domain", text),
        project_id=text("project_id") if "project_id" in auth else None,
        is_application=is_application,
        interface=text("interface", entry) if "interface" in entry else "public",
        ca_file=text("cacert", entry) if "cacert" in entry else None,
    )


def _read(file: Path) -> Any:
    try:
        if file.stat().st_mode & 0o077:
            raise Failed("farm", f"{file}: others than its owner may use it: chmod 600 {file}")
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise Failed("farm", f"{file} cannot be read: {getattr(error, 'strerror', 'it is no UTF-8')}") from None
    except yaml.YAMLError as error:  # its words would show the line, and the password with it
        line = error.problem_mark.line + 1 if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark else "?"
        raise Failed("farm", f"{file}: line {line} is no YAML") from None


def _mapping(data: Any, key: str, file: Path, cloud: str = "") -> Mapping[str, Any]:
    found = data.get(key) if isinstance(data, dict) else None
    if not isinstance(found, dict):
        raise Failed("farm", f"{file}: there is no '{key}'" + (f" in cloud {cloud}" if cloud else ""))
    return found


def _text(fields: Mapping[str, Any], key: str, where: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise Failed("farm", f"{where}: '{key}' must be there, and text (in quotes where it is digits)")
    return value


def _domain(auth: Mapping[str, Any], which: str, text: Any) -> dict[str, str]:
    for kind in ("id", "name"):
        if f"{which}_{kind}" in auth:
            return {kind: text(f"{which}_{kind}")}
    return {"id": "default"}


def _versioned(url: str) -> str:
    plain = url.rstrip("/")
    return plain if plain.endswith("/v3") else f"{plain}/v3"
