"""The two products of a source catalog: the table (``_cat.parquet``) and the segmentation map (``_segm.asdf``)."""

from __future__ import annotations

import base64
import datetime
import importlib.metadata
import json
import platform
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rampflow import SOFTWARE_NAME, __version__
from rampflow.catalog.columns import Definition, define
from rampflow.catalog.photometry import ANNULUS_RADII, APERTURE_RADII
from rampflow.catalog.segments import KRON_PARAMETERS, NEIGHBORS
from rampflow.files.asdf_writer import CompressedArray, create_asdf
from rampflow.files.data_models import data_model_of
from rampflow.files.models import metadata_schema, required_part
from rampflow.files.yaml_tree import tagged
from rampflow.step.exposure import Exposure
from rampflow.step.logs import recorded_log
from rampflow.step.provenance import LOG_KEY, stamp

#: Packages whose versions a catalog records if they were imported: those that detect and measure the sources. What other
#: steps import in the same process of an exposure is not named; ``run.json`` has all packages of a run.
RECORDED_PACKAGES = ("numpy", "scipy", "numba", "photutils")


def catalog_metadata(image: Exposure, references: dict) -> dict:
    """Compile the metadata that both products take from the image.

    Parameters
    ----------
    image : Exposure
        The image.
    references : dict
        Entries of ``meta.ref_file`` that this step adds.

    Returns
    -------
    dict
        ``meta`` of a segmentation map.
    """
    meta = required_part(metadata_schema(data_model_of(image.tag).segmentation_map), image.meta)
    meta["calibration_software_name"], meta["calibration_software_version"] = SOFTWARE_NAME, __version__
    meta["ref_file"] = {**meta.get("ref_file", {}), **references}
    return meta


def image_metadata(image: dict, forced: str = "") -> dict:
    """Compile the metadata that only the catalog takes from the image.

    Parameters
    ----------
    image : dict
        ``meta`` of the image.
    forced : str
        Path of the segmentation map that was given (`forced_segmentation`), or an empty string.

    Returns
    -------
    dict
        Part of ``meta``.
    """
    source = {"filename": final_image_name(image["filename"]), "file_date": image["file_date"]}
    if forced:
        source["forced_segmentation"] = forced
    meta = {"model_type": "ForcedImageSourceCatalogModel" if forced else "ImageSourceCatalogModel", "image": source}
    if "data_release_id" in image:
        meta["data_release_id"] = image["data_release_id"]
    return meta


def final_image_name(name: str) -> str:
    """Derive the name of the calibrated image from that of an intermediate one.

    Parameters
    ----------
    name : str
        Name of the intermediate file, ending in ``_flat.asdf`` for example.

    Returns
    -------
    str
        The name with ``_cal.asdf`` in place of this ending.
    """
    return re.sub(r"_[a-z0-9]+\.asdf$", "_cal.asdf", name)


def table_metadata(status: str, *, scale: float | None = None, energy: dict | None = None) -> dict:
    """Compile the metadata of the table: date, status, versions and settings of the measurement.

    Parameters
    ----------
    status : str
        Value of ``meta.cal_step.source_catalog``: COMPLETE or SKIPPED.
    scale : float, optional
        Arcsec per pixel; without it, the radii of the apertures are left out.
    energy : dict, optional
        Encircled energy of the PSF by aperture radius (arcsec).

    Returns
    -------
    dict
        ``meta`` of the table.
    """
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    imported = (name for name in RECORDED_PACKAGES if name in sys.modules)
    versions = {"Python": platform.python_version()} | {name: importlib.metadata.version(name) for name in imported}
    meta = {
        "date": now,
        "status": status,
        "versions": versions | {SOFTWARE_NAME: __version__},
        "aperture_mask_method": NEIGHBORS,
        "kron_params": KRON_PARAMETERS,
    }
    if scale is not None:
        circles, ring = np.array(APERTURE_RADII), np.array(ANNULUS_RADII)
        meta["aperture_radii"] = {
            "circle_pix": circles / scale,
            "annulus_pix": ring / scale,
            "circle_arcsec": circles,
            "annulus_arcsec": ring,
        }
    if energy is not None:
        meta["ee_fractions"] = np.array(list(energy.values()), np.float32)
    return meta


def write_segmentation(path: Path, meta: dict, labels: np.ndarray, detection: np.ndarray | None, source: Exposure) -> None:
    """Write the segmentation map.

    Parameters
    ----------
    path : pathlib.Path
        File to write.
    meta : dict
        Metadata, from `catalog_metadata`.
    labels : numpy.ndarray
        Label of the source that each pixel belongs to, shape (rows, columns).
    detection : numpy.ndarray or None
        Smoothed image in which the sources were detected, same shape.
    source : Exposure
        The image, whose file is the model for the rest of the tree.
    """
    meta = meta | {"model_type": "SegmentationMapModel"}
    stamp(meta, path.name)
    content = {"meta": meta, "data": CompressedArray(labels.astype(np.uint32, copy=False))}
    if detection is not None:
        content["detection_image"] = detection
    roman = tagged(content, data_model_of(source.tag).segmentation_map)
    with create_asdf(path, {**source.tree, "roman": roman}, source.file.standard):
        pass


def write_catalog(path: Path, meta: dict, columns: dict[str, np.ndarray], table_meta: dict) -> None:
    """Write the catalog in the layout of roman_datamodels.

    Parameters
    ----------
    path : pathlib.Path
        File to write (parquet).
    meta : dict
        Metadata, from `catalog_metadata` and `image_metadata`.
    columns : dict
        Array of each column by its name, in order.
    table_meta : dict
        Metadata of the table, from `table_metadata`.
    """
    from rampflow.files.parquet import pyarrow as pa
    from rampflow.files.parquet import write_table

    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    meta = meta | {"filename": path.name, "file_date": str(now)}
    texts: dict = flattened({"roman": {"meta": meta}, "source_catalog": table_meta})
    definitions = {name: define(name) for name in columns}
    texts["table_meta_yaml"] = astropy_header(definitions, table_meta)
    # finalize copies this log to the ``cal_logs`` of the image.
    texts[LOG_KEY] = json.dumps(recorded_log())
    arrays = [pa.array(np.asarray(columns[name]).astype(definitions[name].dtype)) for name in columns]
    fields = [
        pa.field(name, array.type, metadata={"unit": str(definitions[name].unit)})
        for name, array in zip(columns, arrays, strict=True)
    ]
    write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=texts)), path, compression=None)


def flattened(values, path: str = "") -> dict[str, str]:
    """Flatten a tree to texts by path.

    Parameters
    ----------
    values : dict, list, tuple or scalar
        The tree, or a part of it. `None` is left out.
    path : str
        Path of this part.

    Returns
    -------
    dict
        Text of each value by its path, as ``roman.meta.filename``.
    """
    if isinstance(values, dict) and "base_format" in values:  # a time
        values = str(datetime.datetime.fromisoformat(values["value"]))
    if isinstance(values, list | tuple):
        values = dict(enumerate(values))
    if not isinstance(values, dict):
        return {} if values is None else {path: str(values)}
    texts: dict[str, str] = {}
    for key, value in values.items():
        texts |= flattened(value, f"{path}.{key}" if path else str(key))
    return texts


def astropy_header(definitions: dict[str, Definition], table_meta: dict) -> str:
    """Compile the header of a parquet table that astropy reads: its columns and metadata as YAML.

    It is the text of `astropy.table.meta.get_yaml_from_table`, whose import takes 0.3 s of CPU.

    Parameters
    ----------
    definitions : dict
        Definition of each column by its name, in order.
    table_meta : dict
        Metadata of the table.

    Returns
    -------
    str
        YAML.
    """
    # A class of its own: its representers are not those of other dumpers.
    header_dumper: Any = type("HeaderDumper", (getattr(yaml, "CSafeDumper", yaml.SafeDumper),), {})

    def _ordered(dumper, items):
        entries = [dumper.represent_mapping("tag:yaml.org,2002:map", {key: value}) for key, value in items]
        return yaml.SequenceNode("tag:yaml.org,2002:omap", entries, flow_style=False)

    def _array(dumper, values):
        parts = {"buffer": base64.b64encode(values.tobytes()), "dtype": str(values.dtype), "order": "C", "shape": values.shape}
        return dumper.represent_mapping("!numpy.ndarray", parts)

    def _tuple(dumper, values):
        return dumper.represent_sequence("tag:yaml.org,2002:python/tuple", values)

    def _column(dumper, items):
        return dumper.represent_mapping("tag:yaml.org,2002:map", items)  # of a list: in its order

    header_dumper.add_representer(type({}.items()), _ordered)
    header_dumper.add_representer(np.ndarray, _array)
    header_dumper.add_representer(tuple, _tuple)
    header_dumper.add_representer(_ColumnItems, _column)
    columns = []
    for name, definition in definitions.items():
        items = [("name", name), ("datatype", definition.dtype.name), ("description", definition.description)]
        if definition.unit is not None:
            items.insert(1, ("unit", definition.unit))
        columns.append(_ColumnItems(items))
    header = {"datatype": columns, "meta": table_meta.items()}
    return yaml.dump(header, Dumper=header_dumper, default_flow_style=None, width=130).rstrip("\n")


class _ColumnItems(list):
    """Keys and values of a column in the header, in the order in which they are written."""
