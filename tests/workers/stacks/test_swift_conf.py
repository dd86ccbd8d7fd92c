"""Swift's configuration from a recipe: its settings arrive, ours stay ours."""

import configparser
from typing import Any

import pytest

from scenarios.recipe import Filter, SwiftSettings
from workers.stacks.swift_conf import Place, configuration

PLACE = Place("10.0.0.1", "secret")


def read(settings: SwiftSettings, server: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(configuration(settings, PLACE)[f"/etc/swift/{server}.conf"])
    return parser


def test_settings_reach_their_server_as_swift_writes_them() -> None:
    settings = SwiftSettings(
        workers=2,
        proxy={"object_chunk_size": 4096, "log_handoffs": False},
        object={"disk_chunk_size": 4096, "splice": True},
    )
    proxy, store = read(settings, "proxy-server"), read(settings, "object-server")
    assert proxy["app:proxy-server"]["object_chunk_size"] == "4096"
    assert proxy["app:proxy-server"]["log_handoffs"] == "false"
    assert store["app:object-server"]["splice"] == "true"
    assert "disk_chunk_size" not in read(settings, "account-server")["app:account-server"]
    assert {proxy["DEFAULT"]["workers"], store["DEFAULT"]["workers"]} == {"2"}
    assert (proxy["DEFAULT"]["bind_ip"], store["DEFAULT"]["bind_ip"]) == ("10.0.0.1", "127.0.0.1")


def test_filters_stand_right_behind_authentication() -> None:
    settings = SwiftSettings(filters=(Filter("delay", "delay:factory", {"seconds": 0.5}), Filter("two", "m:f")))
    proxy = read(settings, "proxy-server")
    pipeline = proxy["pipeline:main"]["pipeline"].split()
    at = pipeline.index("tempauth")
    assert pipeline[at : at + 4] == ["tempauth", "delay", "two", "copy"]
    assert dict(proxy["filter:delay"]).items() >= {"paste.filter_factory": "delay:factory", "seconds": "0.5"}.items()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"proxy": {"bind_port": 6200}}, "swift.proxy.bind_port is the farm's"),
        ({"object": {"devices": "/"}}, "swift.object.devices is the farm's"),
        ({"account": {"use": "egg:mine"}}, "swift.account.use is the farm's"),
        ({"container": {"user": "root"}}, "swift.container.user is the farm's"),
        ({"filters": (Filter("tempauth", "m:f"),)}, "'tempauth' is taken"),
        ({"filters": (Filter("a", "m:f"), Filter("a", "m:g"))}, "'a' is taken"),
        ({"filters": (Filter("a", "m:f", {"use": "egg:mine"}),)}, "swift.filters: a.use is the farm's"),
    ],
)
def test_what_is_the_farms_is_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SwiftSettings(**settings)


def test_no_filter_of_ours_can_be_replaced() -> None:
    ours = {name.partition(":")[2] for name in read(SwiftSettings(), "proxy-server") if name.startswith("filter:")}
    for name in ours:
        with pytest.raises(ValueError, match="is taken"):
            SwiftSettings(filters=(Filter(name, "m:f"),))


def test_a_value_cannot_bring_lines_of_its_own() -> None:
    with pytest.raises(ValueError, match="printable"):
        SwiftSettings(object={"disk_chunk_size": "1\rbind_ip = 0.0.0.0"})
