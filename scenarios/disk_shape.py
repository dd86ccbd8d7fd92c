"""The parameters that say in what a disk differs from what its method makes by default; `cow_start` declares them."""

from scenarios.contract import DiskShape
from scenarios.parameters import Choice, Number, Parameter, Values, number, word

_CLUSTER_SIZES_KIB = ("4", "16", "64", "128", "256", "512", "1024", "2048")
_SECTORS = {"512n": (512, 512), "512e": (512, 4096), "4kn": (4096, 4096)}  # logical and physical

PARAMETERS: tuple[Parameter, ...] = (
    Number("layers", 0, 0, 16, "layers", "overlays between a guest's own and the base image"),
    Choice("cluster_size_kib", "recipe", ("recipe", *_CLUSTER_SIZES_KIB), "of an overlay"),
    Choice("extended_l2", "no", ("no", "yes"), "an overlay's clusters are copied in 32 parts"),
    Choice("preallocation", "off", ("off", "metadata", "falloc", "full"), "of an overlay"),
    Choice("sectors", "512n", tuple(_SECTORS), "the disk's logical and physical sectors"),
    Choice("inside", "none", ("none", "ext4", "xfs", "btrfs"), "a file system in a file, which all disks lie on"),
)


def shape_of(params: Values) -> DiskShape:
    """The shape that values of PARAMETERS ask for."""
    logical, physical = _SECTORS[word(params, "sectors")]
    size = word(params, "cluster_size_kib")
    return DiskShape(
        layers=number(params, "layers"),
        cluster_size_kib=0 if size == "recipe" else int(size),
        extended_l2=word(params, "extended_l2") == "yes",
        preallocation=word(params, "preallocation"),
        logical_sector=logical,
        physical_sector=physical,
        inside=word(params, "inside"),
    )
