"""Builds the three rings with the deployed revision's own code; runs inside the walls by itself.

`python3 swift_rings.py ring-folder part-power replicas disks` for disks d1 … dN behind servers on loopback.
"""

import sys

PORTS = {"object": 6200, "container": 6201, "account": 6202}


def main(folder: str, part_power: int, replicas: int, disks: int) -> None:
    from swift.common.ring import RingBuilder  # type: ignore[import-not-found]

    for kind, port in PORTS.items():
        builder = RingBuilder(part_power, replicas, 0)
        for number in range(1, disks + 1):
            builder.add_dev(
                {
                    "region": 1, "zone": number, "weight": 100, "device": f"d{number}", "meta": "",
                    "ip": "127.0.0.1", "port": port, "replication_ip": "127.0.0.1", "replication_port": port,
                }
            )  # fmt: skip
        builder.rebalance(seed="farm")
        builder.get_ring().save(f"{folder}/{kind}.ring.gz")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
