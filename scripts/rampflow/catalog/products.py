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

import numpy as np
import yaml

from rampflow import SOFTWARE_NAME, __version__
from rampflow.catalog.columns import Definition, define
from rampflow.catalog.photometry import ANNULUS_RADII, APERTURE_RADII
from rampflow.catalog.segments import KRON_LEAST, KRON_SCALE
from rampflow.files.asdf_writer import CompressedArray, create_asdf
from rampflow.files.models import metadata_schema, required_part
from rampflow.files.tags import SEGMENTATION_MAP
from rampflow.files.yaml_tree import tagged
from rampflow.step.exposure import Exposure
from rampflow.step.logs import recorded_log
from rampflow.step.provenance import LOG_KEY, stamp

#: How other sources' pixels and Kron apertures are treated, in photutils' terms, for the record.
APERTURE_MASK_METHOD, KRON_PARAMETERS = "mask", (KRON_SCALE, KRON_LEAST, 0.0)
#: Packages whose versions a catalog names where they were imported: those that romancal's names, and the compiler of kernels.
RECORDED_PACKAGES = ("numpy", "scipy", "numba", "astropy", "photutils", "gwcs")


def catalog_metadata(image: dict, references: dict) -> dict:
    """Metadata that both products have of the image.

    Parameters
    ----------
    image : dict
        ``meta`` of the image.
    references : dict
        ``meta.ref_file`` as this step completes it.
    """
    meta = required_part(metadata_schema(SEGMENTATION_MAP), image)
    meta["calibration_software_name"], meta["calibration_software_version"] = SOFTWARE_NAME, __version__
    meta["ref_file"] = {**meta.get("ref_file", {}), **references}
    return meta


def image_metadata(image: dict, forced: str = "") -> dict:
    """What a catalog's metadata has beside those, for it says more of the image.

    Parameters
    ----------
    image : dict
        ``meta`` of the image.
    forced : str
        The segmentation map that was given, if one was.
    """
    meta = {
        "model_type": "ForcedImageSourceCatalogModel" if forced else "ImageSourceCatalogModel",
        "image": {"filename": final_image_name(image["filename"]), "file_date": image["file_date"]},
    }
    if forced:
        meta["image"]["forced_segmentation"] = forced
    if "data_release_id" in image:
        meta["data_release_id"] = image["data_release_id"]
    return meta


def final_image_name(name: str) -> str:
    """Name of the calibrated image that an intermediate one becomes: a ``_flat.asdf`` is a ``_cal.asdf`` in the end."""
    return re.sub(r"_[a-z0-9]+\.asdf$", "_cal.asdf", name)


def table_metadata(status: str, *, scale: float | None = None, energy: dict | None = None) -> dict:
    """What a catalog's own metadata says of how it was made.

    Parameters
    ----------
    status : str
        What ``meta.cal_step.source_catalog`` becomes: COMPLETE or SKIPPED.
    scale : float, optional
        Arcsec per pixel, where something was measured.
    energy : dict, optional
        Encircled energy of the PSF by radius of the aperture.
    """
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    imported = (name for name in RECORDED_PACKAGES if name in sys.modules)
    versions = {"Python": platform.python_version()} | {name: importlib.metadata.version(name) for name in imported}
    meta = {
        "date": now,
        "status": status,
        "versions": versions | {SOFTWARE_NAME: __version__},
        "aperture_mask_method": APERTURE_MASK_METHOD,
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
    meta : dict
        See `catalog_metadata`.
    labels : numpy.ndarray
        Label of the source that each pixel belongs to.
    detection : numpy.ndarray or None
        The smoothed image that the sources were found in.
    source : Exposure
        The image.
    """
    meta = meta | {"model_type": "SegmentationMapModel"}
    stamp(meta, path.name)
    roman = tagged({"meta": meta, "data": CompressedArray(labels.astype(np.uint32, copy=False))}, SEGMENTATION_MAP)
    if detection is not None:
        roman["detection_image"] = detection
    with create_asdf(path, {**source.tree, "roman": roman}, source.file.standard):
        pass


def write_catalog(path: Path, meta: dict, columns: dict[str, np.ndarray], table_meta: dict) -> None:
    """Write the catalog, as roman_datamodels does.

    Parameters
    ----------
    path : pathlib.Path
    meta : dict
        See `catalog_metadata`.
    columns : dict
        Values by the name of the column, in order.
    table_meta : dict
        See `table_metadata`.
    """
    from rampflow.files.parquet import pyarrow as pa
    from rampflow.files.parquet import write_table

    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    meta = meta | {"filename": path.name, "file_date": str(now)}
    texts = flattened({"roman": {"meta": meta}, "source_catalog": table_meta})
    definitions = {name: define(name) for name in columns}
    texts["table_meta_yaml"] = astropy_header(definitions, table_meta)
    # The log of the step goes with the catalog: finalize takes it to the image's ``cal_logs``.
    texts[LOG_KEY] = json.dumps(recorded_log())
    arrays = [pa.array(np.asarray(columns[name]).astype(definitions[name].dtype)) for name in columns]
    fields = [
        pa.field(name, array.type, metadata={"unit": str(definitions[name].unit)})
        for name, array in zip(columns, arrays, strict=True)
    ]
    write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=texts)), path, compression=None)


def flattened(values, path: str = "") -> dict[str, str]:
    """Texts of the values of a tree by their place in it, as ``roman.meta.filename``; there is none for `None`."""
    if isinstance(values, dict) and "base_format" in values:  # a time
        values = str(datetime.datetime.fromisoformat(values["value"]))
    if isinstance(values, dict):
        parts = values.items()
    elif isinstance(values, list | tuple):
        parts = enumerate(values)
    else:
        return {} if values is None else {path: str(values)}
    return {k: text for key, value in parts for k, text in flattened(value, f"{path}.{key}" if path else str(key)).items()}


def astropy_header(definitions: dict[str, Definition], table_meta: dict) -> str:
    """The header of a table that astropy looks for in a parquet file: its columns and metadata as YAML."""

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):
        pass

    def ordered(dumper, items):
        entries = [dumper.represent_mapping("tag:yaml.org,2002:map", {key: value}) for key, value in items]
        return yaml.SequenceNode("tag:yaml.org,2002:omap", entries, flow_style=False)

    def array(dumper, values):
        parts = {"buffer": base64.b64encode(values.tobytes()), "dtype": str(values.dtype), "order": "C", "shape": values.shape}
        return dumper.represent_mapping("!numpy.ndarray", parts)

    def pair(dumper, values):
        return dumper.represent_sequence("tag:yaml.org,2002:python/tuple", values)

    def column(dumper, definition):
        return dumper.represent_mapping("tag:yaml.org,2002:map", definition)

    Dumper.add_representer(type({}.items()), ordered)
    Dumper.add_representer(np.ndarray, array)
    Dumper.add_representer(tuple, pair)
    Dumper.add_representer(_Column, column)
    columns = [
        _Column(
            (key, value)
            for key, value in (
                ("name", name),
                ("unit", definition.unit),
                ("datatype", definition.dtype.name),
                ("description", definition.description),
            )
            if value is not None
        )
        for name, definition in definitions.items()
    ]
    header = {"datatype": columns, "meta": table_meta.items()}
    return yaml.dump(header, Dumper=Dumper, default_flow_style=None, width=130).rstrip("\n")


class _Column(list):
    """Names and values of what is said of a column, in the order in which they are written."""
