"""compare: measure every difference between two products of the same kind, ours and romancal's.

    python compare.py OURS ROMANCAL --output DIFFERENCES.json

Takes ramps, images, segmentation maps and WCS products (.asdf) and catalogs (.parquet), or two folders of final products. It
measures and doesn't judge. The JSON has a list of rows (for folders, such a list by file name), one per array, column, entry of
the metadata or WCS, each with ``name``, ``kind``, ``compared`` (how many values), ``differing`` and what fits its kind:

``largest``, ``p999``
    Largest and 99.9-percentile absolute difference (WCS: mas on the sky), of values that both have.
``nan``
    How many values are not finite in ours alone and in romancal's alone.
``beyond``
    Share of values whose difference is larger than 1e-4 + 1e-5 relative (float32), one unit in the last place (float16).
``flags``
    Of data-quality arrays and `warning_flags`: flags that differ, by name, and how many values have them in ours alone and in
    romancal's alone.
``ours``, ``romancal``
    The values, where there is one (metadata), or how many are in one alone (jump_indices); shapes, where these differ.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

#: Entries of the metadata that tell who made a file and when.
PROVENANCE = (
    *("filename", "file_date", "cal_logs", "calibration_software_name", "calibration_software_version"),
    *("ref_file.crds.version", "source_catalog.tweakreg_catalog_name"),
)
PRODUCTS = ("_cal.asdf", "_wcs.asdf", "_cat.parquet", "_segm.asdf")
SLOPE_LIMIT = (1e-4, 1e-5)  #: absolute (DN/s) and relative


# --------------------------------------------------------------------------------------------------------------- arrays
class Differences:
    """Differences of floating-point values, counted plane by plane.

    Parameters
    ----------
    size : int
        How many values there are in all.
    """

    def __init__(self, size: int):
        self.size, self.differing, self.beyond = size, 0, 0
        self.nan = {"ours": 0, "romancal": 0}
        self._kept = size // 1000 + 1  # the smallest of these largest differences is the 99.9 percentile
        self._largest = np.zeros(0)

    def add(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        """Count one plane."""
        finite, their_finite = np.isfinite(ours), np.isfinite(theirs)
        self.nan["ours"] += int((~finite & their_finite).sum())
        self.nan["romancal"] += int((finite & ~their_finite).sum())
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        self.differing += int((~same).sum())
        different = ~same & finite & their_finite
        first, second = ours[different].astype(np.float64), theirs[different].astype(np.float64)
        size = np.abs(first - second)
        self.beyond += int((~same & ~(finite & their_finite)).sum()) + int(self._is_beyond(ours, theirs, different, size).sum())
        size = np.concatenate([self._largest, size])
        if size.size > self._kept:
            size = np.partition(size, size.size - self._kept)[-self._kept :]
        self._largest = size

    @staticmethod
    def _is_beyond(ours, theirs, different, size) -> np.ndarray:
        if ours.dtype == np.float16:
            return np.abs(_order(ours[different]) - _order(theirs[different])) > 1
        absolute, relative = SLOPE_LIMIT
        return size > absolute + relative * np.abs(theirs[different].astype(np.float64))

    def row(self) -> dict:
        """What was counted."""
        full = self._largest.size == self._kept
        row = {
            "compared": self.size,
            "differing": self.differing,
            "largest": float(self._largest.max(initial=0)),
            "p999": float(self._largest.min()) if full else 0.0,
            "beyond": self.beyond / self.size if self.size else 0.0,
        }
        return row | ({"nan": self.nan} if any(self.nan.values()) else {})


def _order(values: np.ndarray) -> np.ndarray:
    """Number of each half-precision value in their order: neighbors differ by one."""
    bits = values.view(np.int16).astype(np.int32)
    return np.where(bits < 0, -(bits & 0x7FFF), bits)


def compare_floats(ours: np.ndarray, theirs: np.ndarray) -> dict:
    """Compare arrays of floating-point numbers (of the same shape)."""
    counted = Differences(ours.size)
    for plane, their_plane in zip(_planes(ours), _planes(theirs), strict=True):
        counted.add(plane, their_plane)
    return counted.row()


def compare_flags(ours: np.ndarray, theirs: np.ndarray, names: dict[int, str]) -> dict:
    """Compare data-quality arrays: each flag that differs, by name."""
    differing, flags = 0, {}
    for plane, their_plane in zip(_planes(ours), _planes(theirs), strict=True):
        changed = np.bitwise_xor(plane, their_plane)
        differing += int(np.count_nonzero(changed))
        present = int(np.bitwise_or.reduce(changed, axis=None)) if changed.size else 0
        for bit in (b for b in range(32) if present >> b & 1):
            counts = flags.setdefault(names.get(bit, f"bit {bit}"), {"ours": 0, "romancal": 0})
            there = (changed >> changed.dtype.type(bit)) & changed.dtype.type(1) == 1
            mine = (plane >> plane.dtype.type(bit)) & plane.dtype.type(1) == 1
            counts["ours"] += int((there & mine).sum())
            counts["romancal"] += int((there & ~mine).sum())
    return {"compared": int(ours.size), "differing": differing, "flags": flags}


def compare_rows(ours: np.ndarray, theirs: np.ndarray) -> dict:
    """Compare lists of rows whose order says nothing, as jump_indices."""
    mine, yours = ({tuple(row) for row in array.tolist()} for array in (ours, theirs))
    one = {"ours": len(mine - yours), "romancal": len(yours - mine)}
    return {"compared": len(mine | yours), "differing": sum(one.values())} | one


def compare_arrays(name: str, ours: np.ndarray, theirs: np.ndarray) -> dict:
    """Row of one array."""
    row = {"name": name, "kind": str(theirs.dtype)}
    if ours.dtype.newbyteorder("=") != theirs.dtype.newbyteorder("="):
        row["dtype"] = {"ours": str(ours.dtype), "romancal": str(theirs.dtype)}
    if name.endswith("jump_indices"):
        return row | {"kind": "rows"} | compare_rows(ours, theirs)
    if ours.shape != theirs.shape:
        shapes = {"ours": list(ours.shape), "romancal": list(theirs.shape)}
        return row | {"kind": "shape", "compared": theirs.size, "differing": theirs.size} | shapes
    if "dq" in name.rpartition(".")[2] or name == "warning_flags":
        return row | {"kind": "flags"} | compare_flags(ours, theirs, flag_names(ours.dtype))
    if name.startswith("orientation_"):
        ours = nearest_angle(ours, theirs)
    if theirs.dtype.kind == "f":
        return row | compare_floats(ours, theirs)
    if theirs.dtype.kind in "iub":
        return row | compare_floats(ours.astype(np.float64), theirs.astype(np.float64))
    return row | {"compared": theirs.size, "differing": int((ours != theirs).sum())}


def nearest_angle(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Angles in degrees, plus or minus the full circle where that is nearer to the others: 0.5 and 359.5 are 1 degree apart."""
    turns = np.where(np.isfinite(ours) & np.isfinite(theirs), np.round((theirs - ours) / 360), 0)
    return np.where(turns == 0, ours, ours + 360 * turns).astype(ours.dtype)


def _planes(array: np.ndarray):
    """The array plane by plane: in a memory-mapped file no more than one is in memory."""
    return (np.asarray(plane) for plane in (array if array.ndim > 2 else array[None]))


def flag_names(dtype: np.dtype) -> dict[int, str]:
    """Name of each bit, of resultants (uint8) or pixels."""
    from roman_datamodels.dqflags import group, pixel

    return {int(flag).bit_length() - 1: flag.name for flag in (group if dtype.itemsize == 1 else pixel) if int(flag)}


# ----------------------------------------------------------------------------------------------------------------- files
def compare_asdf(ours: Path, theirs: Path) -> list[dict]:
    """Rows of two ASDF files with a ``roman`` tree."""
    import asdf

    with asdf.open(ours, memmap=True) as mine, asdf.open(theirs, memmap=True) as yours:
        leaves, their_leaves = dict(_leaves(mine["roman"])), dict(_leaves(yours["roman"]))
        return list(compare_leaves(leaves, their_leaves))


def _leaves(node, name: str = ""):
    """Names and values of all that is in a tree."""
    import asdf
    import gwcs

    if isinstance(node, asdf.tags.core.NDArrayType):
        node = np.asarray(node)
    if isinstance(node, gwcs.WCS | np.ndarray):
        yield name, node
    elif hasattr(node, "items"):
        for key, value in node.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    elif hasattr(node, "value") and hasattr(node, "unit"):
        yield name, np.asarray(node.value)
    else:
        yield name, node


def compare_leaves(ours: dict, theirs: dict):
    """Rows of two trees: of every array and WCS, one for the metadata that agree, and one of each entry that doesn't."""
    import gwcs

    agreeing = 0
    for name in sorted(ours.keys() | theirs.keys()):
        if name.removeprefix("meta.") in PROVENANCE:
            continue
        mine, yours = ours.get(name), theirs.get(name)
        if isinstance(mine, np.ndarray) and isinstance(yours, np.ndarray):
            yield compare_arrays(name, mine, yours)
        elif isinstance(mine, gwcs.WCS) and isinstance(yours, gwcs.WCS):
            yield {"name": name, "kind": "wcs"} | compare_wcs(mine, yours)
        elif _plain(mine) == _plain(yours):
            agreeing += 1
        else:
            row = {"name": name, "kind": "meta", "compared": 1, "differing": 1, "ours": _plain(mine), "romancal": _plain(yours)}
            if all(isinstance(v, int | float) and not isinstance(v, bool) for v in (mine, yours)):
                row["largest"] = float(abs(mine - yours))
            yield row
    if agreeing:
        yield {"name": "metadata", "kind": "meta", "compared": agreeing, "differing": 0}


def _plain(value):
    """A value of the metadata as JSON has it."""
    if isinstance(value, np.ndarray):
        return f"array {value.dtype} {value.shape}"
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if isinstance(value, list | tuple) or type(value).__name__ == "LNode":
        return [_plain(v) for v in value]
    return value if value is None or type(value) in (int, float, bool, str) else str(value)


def compare_wcs(ours, theirs, points: int = 33) -> dict:
    """Distance on the sky, in mas, of where two WCSs send a grid of pixels that reaches the image's edges."""
    (left, right), (bottom, top) = theirs.bounding_box.bounding_box(order="F")
    x, y = np.meshgrid(np.linspace(left, right, points), np.linspace(bottom, top, points))
    (ra, dec), (their_ra, their_dec) = (wcs(x, y, with_bounding_box=False) for wcs in (ours, theirs))
    east = (np.asarray(ra) - their_ra + 180) % 360 - 180
    distance = np.hypot(east * np.cos(np.radians(their_dec)), dec - their_dec) * 3.6e6
    return {
        "compared": distance.size,
        "differing": int((distance > 0).sum()),
        "largest": float(distance.max()),
        "p999": float(np.quantile(distance, 0.999)),
    }


def compare_catalogs(ours: Path, theirs: Path) -> list[dict]:
    """Rows of two catalogs: of each column that differs, and one of all columns that agree."""
    import pyarrow.parquet as pq

    mine, yours = pq.read_table(ours), pq.read_table(theirs)
    if len(mine) != len(yours):
        sizes = {"ours": len(mine), "romancal": len(yours)}
        return [{"name": "sources", "kind": "rows", "compared": len(yours), "differing": abs(len(mine) - len(yours))} | sizes]
    rows, agreeing, values = [], 0, 0
    for name in sorted(set(mine.column_names) | set(yours.column_names)):
        if name not in mine.column_names or name not in yours.column_names:
            only = "ours" if name in mine.column_names else "romancal"
            rows.append({"name": name, "kind": "column", "compared": len(yours), "differing": len(yours), "only_in": only})
            continue
        row = compare_arrays(name, *(np.asarray(t[name].to_numpy(zero_copy_only=False)) for t in (mine, yours)))
        if row["differing"] or "dtype" in row:
            rows.append(row | _worst(name, mine[name].to_numpy(), yours[name].to_numpy()))
        else:
            agreeing, values = agreeing + 1, values + row["compared"]
    metadata, their_metadata = ({k.decode(): v.decode() for k, v in (t.schema.metadata or {}).items()} for t in (mine, yours))
    rows += compare_leaves(*({k.removeprefix("roman."): v for k, v in m.items()} for m in (metadata, their_metadata)))
    return [{"name": f"{agreeing} columns", "kind": "column", "compared": values, "differing": 0}, *rows]


def _worst(name: str, ours: np.ndarray, theirs: np.ndarray) -> dict:
    """The largest relative difference of a column."""
    if name.startswith("orientation_"):
        ours = nearest_angle(ours, theirs)
    if theirs.dtype.kind != "f" or ours.dtype.kind != "f":
        return {}
    with np.errstate(all="ignore"):
        relative = np.abs(ours.astype(float) - theirs) / np.abs(theirs.astype(float))
    return {"relative": float(np.nanmax(np.where(np.isfinite(relative), relative, 0), initial=0))}


def compare(ours: Path, theirs: Path) -> list[dict]:
    """Rows of two files of the same kind."""
    return (compare_catalogs if ours.suffix == ".parquet" else compare_asdf)(ours, theirs)


def compare_folders(ours: Path, theirs: Path) -> dict[str, list[dict]]:
    """Rows of each product in two folders, by file name; a product that only one has is a row."""
    found = {path.name for folder in (ours, theirs) for path in folder.glob("*") if path.name.endswith(PRODUCTS)}
    names = {name for name in found if not name.endswith("_assign_wcs.asdf")}  # what a step left is no product
    result = {}
    for name in sorted(names):
        there = {"ours": (ours / name).exists(), "romancal": (theirs / name).exists()}
        missing = [{"name": "file", "kind": "file", "compared": 1, "differing": 1} | there]
        result[name] = compare(ours / name, theirs / name) if all(there.values()) else missing
    return result


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ours", type=Path)
    parser.add_argument("romancal", type=Path)
    parser.add_argument("--output", type=Path, required=True, metavar="JSON")
    args = parser.parse_args()
    rows = (compare_folders if args.ours.is_dir() else compare)(args.ours, args.romancal)
    args.output.write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
