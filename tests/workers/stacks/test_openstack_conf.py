"""What a recipe may and may not set of OpenStack's configuration."""

import configparser

import pytest

from scenarios.contract import Failed
from scenarios.recipe import OpenStackSettings, Recipe
from scenarios.strict import BadData, from_data
from workers.stacks import openstack_conf as conf

CONTROL = conf.Control("10.0.0.1", conf.Secrets("a" * 8, "s" * 8, "m" * 8))
HOST = conf.Compute("h1", "10.0.0.2", "qemu+unix:///system?socket=/peers/%s/sock", "/srv/instances", "qemu64")


def nova_of(texts: dict[str, str]) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.read_string(texts["/etc/nova/nova.conf"])
    return parser


def test_settings_of_a_recipe_reach_all_of_nova() -> None:
    settings = OpenStackSettings(
        {"libvirt": {"wait_soft_reboot_seconds": 7}, "notifications": {"default_level": "WARN"}}
    )
    for texts in (conf.control_plane(settings, CONTROL, "farm-x-"), conf.compute(settings, CONTROL, HOST, "farm-x-")):
        assert nova_of(texts)["libvirt"]["wait_soft_reboot_seconds"] == "7"
        assert nova_of(texts)["notifications"]["default_level"] == "WARN"
    assert nova_of(texts)["libvirt"]["virt_type"] == "qemu"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"DEFAULT": {"transport_url": "rabbit://elsewhere/"}}, "DEFAULT.transport_url"),
        ({"database": {"connection": "sqlite://"}}, "database.connection"),
        ({"keystone_authtoken": {"http_retries": 9}}, "keystone_authtoken"),
        ({"DEFAULT": {"instance_name_template": "guest-%08x"}}, "DEFAULT.instance_name_template"),
    ],
)
def test_what_is_the_farms_to_set_is_refused(
    settings: dict[str, dict[str, str | int | float | bool]], told: str
) -> None:
    with pytest.raises(Failed, match=f"openstack.nova.{told} is the farm's to set") as caught:
        conf.control_plane(OpenStackSettings(settings), CONTROL, "farm-x-")
    assert caught.value.fault == "stack"


def test_a_value_cannot_smuggle_in_another_setting() -> None:
    with pytest.raises(ValueError, match="one line"):
        OpenStackSettings({"DEFAULT": {"debug": "x\n[database]"}})


def test_passwords_are_known_where_they_are_needed_only() -> None:
    texts = conf.compute(OpenStackSettings(), CONTROL, HOST, "farm-x-")
    assert not [path for path, text in texts.items() if CONTROL.secrets.admin in text or "postgresql" in text]


def test_a_recipe_needs_the_components_of_its_deployer() -> None:
    part = {"name": "nova", "source": {"pypi": "nova==33.0.2"}}
    data = {"stack": {"name": "x", "deployer": "openstack"}, "component": [part]}
    with pytest.raises(BadData, match="needs a component named 'keystone'"):
        from_data(data, Recipe, source="stack.toml")


def test_the_disks_of_a_recipe_are_novas() -> None:
    names = ("nova", "keystone", "placement", "glance", "swift")
    parts = [{"name": name, "source": {"pypi": f"{name}==1"}} for name in names]
    data = {"stack": {"name": "x", "deployer": "openstack"}, "component": parts, "disk": {"cache": "unsafe"}}
    with pytest.raises(BadData, match="guests' disks are Nova's"):
        from_data(data, Recipe, source="stack.toml")
