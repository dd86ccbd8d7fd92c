"""What a scenario takes of one host at once, asked by default with guests of 128 MiB: told before a cluster is lent.

Disk is what its guests' disks and volumes may grow to. Beside it every session has a base image of 128 MiB and a file
of 128 MiB that limits are probed with.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Occupation:
    guests: int
    disk_mib: int
    shared_mib: int = 0  # in the folder that all hosts see


OCCUPATION = {
    "boot": Occupation(1, 0),
    "cow_start": Occupation(1, 128),
    "chunked_upload": Occupation(0, 0),
    "live_migration": Occupation(1, 0, 64),
    "boot_many": Occupation(4, 0),
    "image_fetch": Occupation(1, 32),
    "operator_guest": Occupation(1, 0),
    "evacuation": Occupation(3, 0, 192),
    "link_cut": Occupation(1, 0, 64),
    "wipe": Occupation(0, 64),
    "image_streaming": Occupation(1, 128),
    "image_start": Occupation(1, 128),
    "migration_conflicts": Occupation(2, 0, 128),
    "object_as_file": Occupation(0, 0),
    "upload_billing": Occupation(0, 0),
    "stack_tests": Occupation(0, 0),
}
