"""clouds.yaml: what of it is read, and what is refused, always in one line without its secrets."""

from pathlib import Path

import pytest

from scenarios.contract import Failed
from workers.stacks.clouds import login_of

PLAIN = """\
clouds:
  ours:
    region_name: RegionOne
    interface: internal
    cacert: /etc/ours.pem
    auth:
      auth_url: https://cloud.example:5000/
      username: measurer
      password: 's3cret # of ours'
      project_name: farm
      user_domain_name: Default
      project_domain_id: default
"""
APPLICATION = """\
clouds:
  ours:
    auth_type: v3applicationcredential
    auth:
      auth_url: https://cloud.example/identity/v3
      application_credential_id: "0123"
      application_credential_secret: s3cret
"""


def written(home: Path, text: str, mode: int = 0o600) -> Path:
    file = home / "secrets" / "clouds.yaml"
    file.parent.mkdir()
    file.write_text(text)
    file.chmod(mode)
    return home


def test_a_password_and_where_it_counts(tmp_path: Path) -> None:
    login = login_of(written(tmp_path, PLAIN), "ours")
    assert (login.auth_url, login.region, login.interface) == ("https://cloud.example:5000/v3", "RegionOne", "internal")
    assert login.ca_file == "/etc/ours.pem"
    asked = login.asked()["auth"]
    assert asked == {
        "identity": {
            "methods": ["password"],
            "password": {"user": {"name": "measurer", "domain": {"name": "Default"}, "password": "s3cret # of ours"}},
        },
        "scope": {"project": {"name": "farm", "domain": {"id": "default"}}},
    }
    assert "s3cret" not in repr(login)


def test_a_project_by_its_id(tmp_path: Path) -> None:
    login = login_of(written(tmp_path, PLAIN.replace("project_name: farm", "project_id: '77'")), "ours")
    assert login.asked()["auth"]["scope"] == {"project": {"id": "77"}}  # type: ignore[index]


def test_an_application_credential(tmp_path: Path) -> None:
    login = login_of(written(tmp_path, APPLICATION), "ours")
    credential = {"id": "0123", "secret": "s3cret"}
    assert login.auth_url == "https://cloud.example/identity/v3"
    identity = {"methods": ["application_credential"], "application_credential": credential}
    assert login.asked() == {"auth": {"identity": identity}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (PLAIN.replace("ours:", "others:"), "there is no 'ours'"),
        (PLAIN.replace("clouds:", "cloud:"), "there is no 'clouds'"),
        (PLAIN.replace("auth:", "token:"), "there is no 'auth' in cloud ours"),
        (PLAIN.replace("username", "user"), "'username' must be there"),
        (PLAIN.replace("'s3cret # of ours'", "0123"), "'password' must be there, and text .in quotes"),
        (PLAIN.replace("'s3cret", '"s3cret'), "line [0-9]+ is no YAML"),
        (PLAIN.replace("cacert: /etc/ours.pem", "verify: false"), "'verify' cannot be switched off"),
        (PLAIN.replace("interface: internal", "auth_type: v3token"), "auth_type 'v3token' is none of"),
        ("!!python/object/apply:os.system [false]", "is no YAML"),
        ("", "there is no 'clouds'"),
    ],
)
def test_what_is_no_way_in_is_refused_by_name(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(Failed, match=told) as refused:
        login_of(written(tmp_path, text), "ours")
    assert refused.value.fault == "farm"
    assert "s3cret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="chmod 600"):
        login_of(written(tmp_path, PLAIN, mode=0o640), "ours")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="secrets/clouds.yaml cannot be read: No such file"):
        login_of(tmp_path, "ours")
