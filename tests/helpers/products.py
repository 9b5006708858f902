"""Small products by name, and the comparison of those of two runs."""

import json
from collections.abc import Mapping

import asdf
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from rampflow.files.asdf_writer import create_asdf

PICTURE = bytes.fromhex("89504e470d0a1a0a") + bytes(100) + b"IEND\xaeB`\x82"
ENDS = ("cal.asdf", "wcs.asdf", "qa.json", "segm.asdf", "cat.parquet", "cal.png", "tweakreg.json")

#: Numbers that differ between two runs of the same.
OF_ONE_RUN = ("cpu_time", "wall_time", "peak_memory", "filedate")


def write_products(folder, stem, date="2026-11-29T03:02:34.166", ends=ENDS):
    """Write products of an exposure, as far as their names and dates go."""
    folder.mkdir(exist_ok=True)
    for end in ends:
        path = folder / f"{stem}_{end}"
        if path.suffix == ".asdf":
            with create_asdf(path, {"roman": {"meta": {"filename": path.name, "file_date": date}}}):
                pass
        elif path.suffix == ".parquet":
            meta = {"filename": path.name, "image.file_date": date.replace("T", " ") + "000"}
            schema = pa.schema([("ra", pa.float64())], metadata={f"roman.meta.{key}": value for key, value in meta.items()})
            parquet.write_table(pa.table({"ra": [1.0]}, schema=schema), path)
        elif path.suffix == ".png":
            path.write_bytes(PICTURE)
        else:
            path.write_text(json.dumps({"association": stem, "filename": path.name}))


def arrays_of(path):
    """All arrays of a product, by name; of a WCS, the positions of some pixels.

    Of the numbers of an exposure, those that two runs have in common; nothing of the table of exposures, which has the others.
    """
    if path.stem == "exposures":
        return {}
    if path.name.endswith("_qa.json"):
        numbers = json.loads(path.read_text())["numbers"]
        common = {name: value for name, value in numbers.items() if name not in OF_ONE_RUN}
        return {"numbers": np.frombuffer(json.dumps(common).encode(), np.uint8)}
    if path.suffix == ".parquet":
        table = parquet.read_table(path)
        return {name: table[name].to_numpy() for name in table.column_names}
    if path.suffix == ".json":
        return {"summary": np.frombuffer(json.dumps(json.loads(path.read_text())["exposures"]).encode(), np.uint8)}
    if path.suffix != ".asdf":
        return {}
    with asdf.open(path, memmap=False, lazy_load=False) as file:
        found = {}

        def collect(node, name):
            if isinstance(node, Mapping):  # also nodes of roman_datamodels, which are no dict
                for key in node:
                    collect(node[key], f"{name}.{key}")
            elif isinstance(node, np.ndarray | asdf.tags.core.NDArrayType):
                found[name] = np.asarray(node)
            elif hasattr(node, "forward_transform"):  # a WCS: the positions of some pixels
                found[name] = np.array(node(*np.mgrid[0:500:5j, 0:500:5j], with_bounding_box=False))

        collect(file.tree["roman"], path.name)
        assert found or "wcs" in path.name, f"{path}: no arrays were found to compare"
        return found


def assert_same_products(results, expected):
    """The same files, with the same arrays, byte for byte; without the report, the record and the hidden mark of a run."""
    names, ours = (
        sorted(p.name for p in folder.glob("[!.]*") if p.is_file() and not p.name.endswith(("_report.html", "run.json")))
        for folder in (expected, results)
    )
    assert ours == names, set(ours) ^ set(names)
    for name in names:
        ours, theirs = arrays_of(results / name), arrays_of(expected / name)
        assert ours.keys() == theirs.keys(), name
        for key, array in theirs.items():
            assert ours[key].dtype == array.dtype and ours[key].shape == array.shape, (name, key)
            if array.dtype.hasobject:
                assert list(ours[key]) == list(array), (name, key)
            else:
                assert ours[key].tobytes() == array.tobytes(), (name, key)


def leftovers(folder):
    """Partial files of writers that were killed."""
    return sorted(folder.rglob(".rampflow-*"))
