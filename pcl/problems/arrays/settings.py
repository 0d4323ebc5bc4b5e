"""Settings of pairs that lie in arrays of one's own."""

__all__ = ["FORMS", "SPLIT_RULES", "ArraysSettings"]

from dataclasses import dataclass

from pcl.settings import setting

FORMS = ("numbers", "image", "labels", "text")
SPLIT_RULES = ("random", "group", "order", "given")


@dataclass
class ArraysSettings:
    """``data.arrays``.

    An array is ``x.npy``, ``x.npz:name``, ``x.nc:variable``, ``x.zarr:variable``, ``x.parquet:column``, ``x.csv:a,b``
    or ``x.csv:temp_*``; its first axis is that of the pairs. What files hold is part of an identity, not their place.
    """

    u: str | None = setting(
        "array of the items u: x.npy, x.npz:name, x.nc:variable, x.zarr:variable, x.csv:column or x.csv:temp_*",
        None,
        is_input=True,
        is_identity=False,
    )
    v: str | None = setting("array of the items v, likewise", None, is_input=True, is_identity=False)
    form_u: str = setting(
        "what u are: any numbers; images (H, W) or (C, H, W); labels 0 .. K-1; texts as bytes or tokens (T,)",
        "numbers",
        choices=FORMS,
    )
    form_v: str = setting("what v are", "numbers", choices=FORMS)
    sample_dim: str = setting(
        "dimension of the pairs in NetCDF and Zarr; empty: the one called sample, else the leading one", ""
    )
    coordinates: str = setting(
        "what says which pair a row is (a coordinate along the pairs in NetCDF and Zarr, an index of pandas in "
        "Parquet) must agree in all arrays, and ascend for split=order; or it is ignored, and row i of each is a pair",
        "check",
        choices=("check", "ignore"),
        is_identity=False,
    )
    missing: str = setting(
        "pairs of which a value is NaN: all are refused, or these are left out, after the split",
        "refuse",
        choices=("refuse", "mask"),
    )
    split: str = setting(
        "how pairs are held out: at random, whole groups, the last ones in their order, or as is given",
        "random",
        choices=SPLIT_RULES,
    )
    test_fraction: float = setting("share of the pairs that is held out", 0.1, above=0, at_most=1)
    gap: int = setting(
        "pairs between training and test that are left out, of split=order", 0, at_least=0, at_most=10**12
    )
    groups: str | None = setting(
        "array of the group of every pair, numbers or texts, of split=group", None, is_input=True, is_identity=False
    )
    given: str | None = setting(
        "array of the split of every pair, 0 or train, 1 or test, of split=given",
        None,
        is_input=True,
        is_identity=False,
    )
