"""Compare the products of two runs by exposure: images, flags, catalogs, WCSs, references, parameters and versions."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from rampflow import SOFTWARE_NAME, __version__
from rampflow.command_line import script_parser
from rampflow.comparison.catalogs import FLUXES, POSITIONS, column_values, compare_catalogs
from rampflow.comparison.images import compare_images, compare_wcs, different_arrays
from rampflow.comparison.measures import MEASURES, exceeded, parse_tolerances
from rampflow.comparison.origins import compare_origins
from rampflow.errors import RampflowError, counted, one_line
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.atomic import replacing
from rampflow.folders import WORKFLOW
from rampflow.step.exposure import Exposure
from rampflow.step.program import reported_errors

IMAGE, CATALOG, SEGMENTS, WCS = "_cal.asdf", "_cat.parquet", "_segm.asdf", "_wcs.asdf"
TEMPLATE = WORKFLOW / "report" / "comparison.html.j2"
#: Verdicts of an exposure, the worst first.
VERDICTS = ("unreadable", "missing", "added", "different", "within tolerance", "equal")
#: Verdicts with which the runs do not agree.
DISAGREEING = VERDICTS[:4]
LARGEST_MAP = 64  #: blocks a side of the map of an image's differences


def read_images(old: Path, new: Path) -> tuple[dict, list[str], np.ndarray]:
    """Compare the calibrated images of an exposure.

    Parameters
    ----------
    old, new : pathlib.Path
        The two images.

    Returns
    -------
    found : dict
        Measures, changed ``flags``, and changed ``origins``.
    arrays : list of str
        Names of the arrays that differ.
    significance : numpy.ndarray
        (new - old) / err, NaN where a pixel is not good in both.

    Raises
    ------
    RampflowError
        An image can't be read, its WCS can't be evaluated, or the images have different shapes.
    """
    with AsdfFile(old) as old_file, AsdfFile(new) as new_file:
        exposures = [Exposure(file) for file in (old_file, new_file)]
        for exposure in exposures:
            exposure.expect_model("wfi_image", "compare_runs.py")
        shapes = [exposure.array("data", 2).shape for exposure in exposures]
        if shapes[0] != shapes[1]:
            raise RampflowError(f"{new}: data has shape {shapes[1]}, and {shapes[0]} in {old}; they are not of one exposure")
        arrays = [
            {name: exposure.array(name, 2, shape=shapes[0]).read() for name in ("data", "err", "dq")} for exposure in exposures
        ]
        measures, flags, significance = compare_images(*arrays)
        solutions = [exposure.meta.get("wcs") for exposure in exposures]
        try:
            measures |= compare_wcs(solutions[0], solutions[1], exposures[0].array("data").plane_shape)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            what = f"{type(error).__name__}: {one_line(error)}"
            raise RampflowError(f"{new}: its WCS or that of {old} can't be evaluated ({what}); make the image again") from None
        found = {**measures, "flags": flags, "origins": compare_origins(*(exposure.meta for exposure in exposures))}
        return found, different_arrays(*exposures), significance


def read_catalogs(old: Path, new: Path) -> tuple[dict, list[str]]:
    """Compare the source catalogs of an exposure.

    Parameters
    ----------
    old, new : pathlib.Path
        The two catalogs.

    Returns
    -------
    measures : dict
        Measures of the catalogs.
    columns : list of str
        Names of the columns that differ.

    Raises
    ------
    RampflowError
        A catalog can't be read, or is not one of sources.
    """
    from rampflow.files.parquet import pyarrow, read_table

    tables = []
    for path in (old, new):
        try:
            table = read_table(path)
        except (OSError, pyarrow.ArrowException) as error:
            raise RampflowError(f"{path}: can't be read ({error})") from None
        names = table.column_names
        if missing := {*POSITIONS} - set(names):
            raise RampflowError(f"{path}: has no column {', '.join(sorted(missing))}; it is not a source catalog")
        if repeated := [name for name in names if names.count(name) > 1]:
            raise RampflowError(
                f"{path}: has the column {repeated[0]} {names.count(repeated[0])} times; make the catalog again"
            )
        columns = {name: column_values(table[name]) for name in names}
        for name in (*POSITIONS, *FLUXES):
            if name in columns and columns[name].dtype.kind not in "iuf":
                raise RampflowError(f"{path}: its column {name} has no numbers; make the catalog again")
        tables.append(columns)
    return compare_catalogs(*tables)


def count_different_segments(old: Path, new: Path) -> int:
    """Count the pixels that belong to a source in one of two segmentation maps alone.

    Parameters
    ----------
    old, new : pathlib.Path
        The two maps.

    Returns
    -------
    int
        The number of pixels.

    Raises
    ------
    RampflowError
        A map can't be read, or the maps have different shapes.
    """
    with AsdfFile(old) as old_file, AsdfFile(new) as new_file:
        maps = [Exposure(file).array("data", 2, kinds="ui").read() for file in (old_file, new_file)]
    if maps[0].shape != maps[1].shape:
        shapes = f"data has shape {maps[1].shape}, and {maps[0].shape} in {old}"
        raise RampflowError(f"{new}: {shapes}; they are not of one exposure")
    return int(((maps[0] > 0) != (maps[1] > 0)).sum())


def compare_exposure(old: Path, new: Path, stem: str, tolerances: dict[str, float], pictures: bool) -> dict:
    """Compare the products of one exposure.

    Parameters
    ----------
    old, new : pathlib.Path
        Folders of the products.
    stem : str
        Name of the exposure.
    tolerances : dict of str to float
        Largest accepted absolute values of measures. Without any, every difference counts.
    pictures : bool
        Whether to draw a map of the differences of the images.

    Returns
    -------
    dict
        ``exposure``, ``verdict``, ``reasons`` (list of str), the measures, and what differs by kind: ``arrays``, ``columns``,
        ``flags`` and ``origins``; ``picture`` where one was drawn.
    """
    row: dict[str, Any] = {"exposure": stem, "reasons": [], "arrays": [], "columns": [], "flags": {}, "origins": {}}
    paths = {end: (old / f"{stem}{end}", new / f"{stem}{end}") for end in (IMAGE, CATALOG, SEGMENTS, WCS)}
    alone = {}  # ends of the products that only one of the folders has
    for end, pair in paths.items():
        there = [path.exists() for path in pair]
        if there[0] != there[1]:
            alone[end] = "missing" if there[0] else "added"
    if IMAGE in alone:
        folder = "OLD" if alone[IMAGE] == "missing" else "NEW"
        return row | {"verdict": alone[IMAGE], "reasons": [f"only {folder} has {stem}{IMAGE}"]}
    try:
        found, row["arrays"], significance = read_images(*paths[IMAGE])
        row |= found
        if CATALOG not in alone and paths[CATALOG][0].exists():
            measures, row["columns"] = read_catalogs(*paths[CATALOG])
            row |= measures
        if SEGMENTS not in alone and paths[SEGMENTS][0].exists():
            row["segments_different"] = count_different_segments(*paths[SEGMENTS])
    except RampflowError as error:
        return row | {"verdict": "unreadable", "reasons": [str(error)]}
    differences = describe_differences(row, alone)
    # A measure of a product that neither run makes, as the catalog of a dark exposure, has nothing to exceed.
    beyond = exceeded(row, {name: value for name, value in tolerances.items() if name in row})
    reasons = [f"{name} is {value:.3g}, beyond {tolerances[name]:.3g}" for name, value in beyond.items()]
    if not differences:
        return row | {"verdict": "equal"}
    if pictures and "data" in row["arrays"]:
        from rampflow.pictures.differences import difference_map

        row["picture"] = difference_map(significance, LARGEST_MAP)
    if tolerances and not reasons and not alone:
        return row | {"verdict": "within tolerance", "reasons": differences}
    return row | {"verdict": "different", "reasons": reasons + differences}


def describe_differences(row: dict, alone: dict[str, str]) -> list[str]:
    """Describe in words how the products of an exposure differ.

    Parameters
    ----------
    row : dict
        Measures, ``arrays`` and ``columns`` of `compare_exposure`.
    alone : dict of str to str
        For each product that only one of the folders has, by the end of its name: ``missing`` or ``added``.

    Returns
    -------
    list of str
        The differences; empty for equal products.
    """
    differences = [f"arrays differ: {', '.join(row['arrays'])}"] if row["arrays"] else []
    if row["pixels_different"]:
        pixels = counted(row["pixels_different"], "pixel differs", "pixels differ")
        differences.append(f"{pixels}, by {row['image_rms']:.3g} err (rms over all)")
    if row["flags_different"]:
        differences.append(f"flags of {counted(row['flags_different'], 'pixel')} differ: {', '.join(row['flags'])}")
    if row["pixels_gained"] or row["pixels_lost"]:
        differences.append(f"{counted(row['pixels_gained'], 'pixel')} became good, {row['pixels_lost']} bad")
    differences += [f"{end.strip('_')} is {state}" for end, state in alone.items()]
    if np.isnan(row["wcs_shift_max"]):
        differences.append("only one of the images has a WCS, or no position is finite")
    elif row["wcs_shift_max"] != 0:
        differences.append(f"the WCS moved by {row['wcs_shift_max']:.3g} mas")
    if row.get("segments_different"):
        differences.append(
            f"{counted(row['segments_different'], 'pixel belongs', 'pixels belong')} to a source in one map alone"
        )
    if row.get("sources_gained") or row.get("sources_lost"):
        differences.append(f"{counted(row['sources_gained'], 'source')} gained, {row['sources_lost']} lost")
    if row["columns"]:
        differences.append(f"{counted(len(row['columns']), 'column of the catalog differs', 'columns of the catalog differ')}")
    for section in ("references", "parameters", "statuses") if differences else ():
        changed = [f"{name} {old} -> {new}" for name, (old, new) in row["origins"][section].items()]
        differences += [f"{section}: {', '.join(changed)}"] if changed else []
    return differences


def write_comparison(path: Path, rows: list[dict]) -> None:
    """Write the table of a comparison: a row per exposure.

    Parameters
    ----------
    path : pathlib.Path
        The parquet file. Its columns have their unit and meaning as metadata.
    rows : list of dict
        What `compare_exposure` returned of each exposure.
    """
    from rampflow.files.parquet import pyarrow
    from rampflow.files.parquet import write_table as write_parquet

    texts = {
        "exposure": "name of the exposure",
        "verdict": f"one of {', '.join(VERDICTS)}",
        "reasons": "what differs, in words",
        "arrays": "arrays of the calibrated image that differ",
        "columns": "columns of the catalog that differ",
        "flags": "pixels in which a flag was set and cleared, by flag (JSON)",
        "origins": "references, parameters, versions and statuses that differ, with the old and the new value (JSON)",
    }
    fields, columns = [], []
    for name, meaning in texts.items():
        values = [row[name] for row in rows]
        if name in ("reasons", "arrays", "columns"):
            values = ["; ".join(value) for value in values]
        elif name in ("flags", "origins"):
            values = [json.dumps(value) for value in values]
        fields.append(pyarrow.field(name, pyarrow.string(), metadata={"description": meaning}))
        columns.append(pyarrow.array(values, pyarrow.string()))
    for measure in MEASURES:
        metadata = {"unit": measure.unit, "description": measure.meaning}
        fields.append(pyarrow.field(measure.name, pyarrow.float64(), metadata=metadata))
        columns.append(pyarrow.array([row.get(measure.name) for row in rows], pyarrow.float64()))
    with replacing(path) as partial:
        write_parquet(pyarrow.Table.from_arrays(columns, schema=pyarrow.schema(fields)), partial)


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    parser = script_parser(
        "compare_runs.py",
        __doc__ or "",
        epilog="Exit status: 0 if all exposures are equal or within the tolerances, 1 if not, 2 after an error.",
    )
    parser.add_argument("old", metavar="OLD", type=Path, help="folder of products of the first run")
    parser.add_argument(
        "new", metavar="NEW", type=Path, help="folder of products of the second run; romancal's products are read, too"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for comparison.html and comparison.parquet")
    parser.add_argument(
        "--tolerance",
        metavar="MEASURE=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="largest accepted absolute value of a measure; the given measures decide, and other differences are only listed. "
        f"Measures: {', '.join(m.name for m in MEASURES)}",
    )
    parser.add_argument(
        "--cores", metavar="N", type=int, default=1, help="exposures to compare at a time (default: %(default)s)"
    )
    parser.add_argument("--no-pictures", action="store_true", help="draw no maps of the differences")
    arguments = parser.parse_args(argv)
    disagreeing = 0
    with reported_errors("compare_runs") as outcome:
        tolerances = parse_tolerances(arguments.tolerance)
        stems: set[str] = set()
        for folder in (arguments.old, arguments.new):
            found = {path.name.removesuffix(IMAGE) for path in folder.glob(f"*{IMAGE}")}
            if not found:
                raise RampflowError(f"{folder}: holds no calibrated image (*{IMAGE}); give a folder of products")
            stems |= found
        if arguments.old.resolve() == arguments.new.resolve():
            raise RampflowError(f"{arguments.new}: is the folder {arguments.old}; OLD and NEW are two folders")
        arguments.out.mkdir(parents=True, exist_ok=True)
        rows = []
        with contextlib.ExitStack() as stack:
            apply: Callable = map
            if arguments.cores > 1:
                apply = stack.enter_context(ProcessPoolExecutor(arguments.cores)).map
            names = sorted(stems)
            repeated = [[value] * len(names) for value in (tolerances, not arguments.no_pictures)]
            folders = [[folder] * len(names) for folder in (arguments.old, arguments.new)]
            for row in apply(compare_exposure, *folders, names, *repeated):
                rows.append(row)
                print(f"{row['exposure']}: {row['verdict']}{''.join(f'; {reason}' for reason in row['reasons'])}", flush=True)
        write_comparison(arguments.out / "comparison.parquet", rows)
        counts = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS}
        counts = {verdict: number for verdict, number in counts.items() if number}
        disagreeing = sum(counts.get(verdict, 0) for verdict in DISAGREEING)

        from rampflow.pictures.pages import write_page

        rows.sort(key=lambda row: VERDICTS.index(row["verdict"]))
        content = {
            "old": arguments.old.resolve(),
            "new": arguments.new.resolve(),
            "rows": [dict.fromkeys(m.name for m in MEASURES) | {"picture": None} | row for row in rows],
            "counts": counts,
            "measures": MEASURES,
            "tolerances": tolerances,
            "made_by": f"{SOFTWARE_NAME} {__version__}",
        }
        write_page(arguments.out / "comparison.html", TEMPLATE, content)
        print(f"{counted(len(rows), 'exposure')}: {', '.join(f'{number} {verdict}' for verdict, number in counts.items())}")
        print(f"The page: {arguments.out / 'comparison.html'}; the table: {arguments.out / 'comparison.parquet'}")
    return 2 if outcome.status else int(disagreeing > 0)


if __name__ == "__main__":
    sys.exit(main())
