"""The two products of a source catalog: the table (``_cat.parquet``) and the segmentation map (``_segm.asdf``)."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import re
from pathlib import Path

import numpy as np

from wfi import SOFTWARE_NAME, __version__
from wfi.asdf_io import replacing
from wfi.catalog.photometry import ANNULUS_RADII, APERTURE_RADII
from wfi.errors import RampflowError
from wfi.step import LOG_KEY, recorded_log

#: How photutils treats masked pixels and Kron apertures, for the record.
APERTURE_MASK_METHOD, KRON_PARAMETERS = "mask", (2.5, 1.4, 0.0)
RECORDED_PACKAGES = ("numpy", "scipy", "astropy", "photutils", "gwcs")


def start_models(image, references: dict, *, forced: str = ""):
    """Empty models of both products, with the metadata of the image.

    Parameters
    ----------
    image : roman_datamodels.datamodels.ImageModel
    references : dict
        ``meta.ref_file`` as this step completes it.
    forced : str
        The segmentation map that was given, if one was.

    Returns
    -------
    catalog, segmentation : roman_datamodels.datamodels.DataModel
    """
    from roman_datamodels import datamodels

    kind = datamodels.ForcedImageSourceCatalogModel if forced else datamodels.ImageSourceCatalogModel
    catalog = kind.create_minimal({"meta": image.meta})
    catalog.meta.calibration_software_name, catalog.meta.calibration_software_version = SOFTWARE_NAME, __version__
    catalog.meta.image = {"filename": final_image_name(image.meta.filename), "file_date": image.meta.file_date}
    if forced:
        catalog.meta.image["forced_segmentation"] = forced
    if "data_release_id" in image.meta:
        catalog.meta.data_release_id = image.meta.data_release_id
    for name, value in references.items():
        catalog.meta.ref_file[name] = value
    return catalog, datamodels.SegmentationMapModel.create_minimal({"meta": catalog.meta})


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
    versions = {"Python": platform.python_version()} | {name: importlib.metadata.version(name) for name in RECORDED_PACKAGES}
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


def write_products(catalog, segmentation, paths: tuple[Path, Path]) -> None:
    """Check both products against their schemas and write them: both appear whole, or none does.

    Raises
    ------
    RampflowError
        A product is not valid.
    """
    import asdf

    # Loaded before `to_parquet`, which would load pandas with pyarrow.
    from wfi.parquet import read_table, write_table

    catalog_path, segmentation_path = paths
    try:
        with replacing(catalog_path) as table, replacing(segmentation_path) as labels:
            catalog.to_parquet(table)
            # The log of the step goes with the catalog: finalize takes it to the image's ``cal_logs``.
            written, step_log = read_table(table), {LOG_KEY: json.dumps(recorded_log()).encode()}
            write_table(written.replace_schema_metadata({**written.schema.metadata, **step_log}), table)
            segmentation.to_asdf(labels)
    except asdf.ValidationError as error:
        lines = str(error).strip().splitlines()
        raise RampflowError(f"{catalog_path}: is not a valid product ({lines[0]}; {lines[-1].strip()}); report it") from error
