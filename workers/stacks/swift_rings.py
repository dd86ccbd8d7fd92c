"""Builds the three rings with the deployed revision's own code; runs inside the walls by itself.

`python3 swift_rings.py ring-folder part-power replicas device …`, each device as `name,zone,address of its servers`.
"""

import sys

PORTS = {"object": 6200, "container": 6201, "account": 6202}


def main(folder: str, part_power: int, replicas: int, devices: list[str]) -> None:
    from swift.common.ring import RingBuilder  # type: ignore[import-not-found]

    for kind, port in PORTS.items():
        builder = RingBuilder(part_power, replicas, 0)
        for device in devices:
            name, zone, address = device.split(",")
            builder.add_dev(
                {
                    "region": 1, "zone": int(zone), "weight": 100, "device": name, "meta": "",
                    "ip": address, "port": port, "replication_ip": address, "replication_port": port,
                }
            )  # fmt: skip
        builder.rebalance(seed="farm")
        builder.get_ring().save(f"{folder}/{kind}.ring.gz")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
