"""Columns of a source catalog: their order, and their data types, units and descriptions in the schema."""

from __future__ import annotations

import itertools
import re
from typing import NamedTuple

import numpy as np

from rampflow.catalog.photometry import aperture_names
from rampflow.files.models import read_schema
from rampflow.files.tags import CATALOG_COLUMNS

#: Units of the schema, and how astropy spells them.
_SPELLINGS = {"arcsec^2": "arcsec2", "nJy arcsec-2": "nJy / arcsec2", "1/arcsec2": "1 / arcsec2"}

CENTROID = ("x_centroid", "y_centroid", "x_centroid_err", "y_centroid_err")
WINDOWED = ("x_centroid_win", "y_centroid_win", "x_centroid_win_err", "y_centroid_win_err")
PSF_POSITION = ("x_psf", "x_psf_err", "y_psf", "y_psf_err")
SKY = ("ra", "dec", "ra_centroid", "dec_centroid", "ra_centroid_err", "dec_centroid_err")
SKY_WINDOWED = ("ra_centroid_win", "dec_centroid_win", "ra_centroid_win_err", "dec_centroid_win_err")
SKY_PSF = ("ra_psf", "dec_psf", "ra_psf_err", "dec_psf_err")
EXTENT = ("bbox_xmin", "bbox_xmax", "bbox_ymin", "bbox_ymax", "segment_area")
SHAPE = (
    "semimajor",
    "semiminor",
    "fwhm",
    "ellipticity",
    "orientation_pix",
    "orientation_sky",
    "cxx",
    "cxy",
    "cyy",
    "kron_radius",
)
NEIGHBOR = ("nn_label", "nn_distance")
PROFILE = ("sharpness", "roundness1", "is_extended", "fluxfrac_radius_50")
PSF_FLUX = ("psf_flux", "psf_flux_err")
SEGMENT_FLUX = ("segment_flux", "segment_flux_err", "kron_flux", "kron_flux_err", "kron_abmag", "kron_abmag_err")
PSF_QUALITY = ("psf_flags", "psf_gof")

#: Columns that a catalog of given sources has twice: of the given shapes and positions, and of those in this image.
REMEASURED = ("flagged_spatial_id", *CENTROID, *SKY, *SHAPE, *NEIGHBOR)

#: Columns of the format that are not measured in the image, and their value, as in romancal.
UNMEASURED: dict[str, float] = dict.fromkeys(
    ("flagged_spatial_id", "image_flags", *(name for name in (*CENTROID, *WINDOWED) if name.endswith("_err"))), 0
)
UNMEASURED |= dict.fromkeys((name for name in (*SKY, *SKY_WINDOWED, *SKY_PSF) if name.endswith("_err")), 0)
UNMEASURED |= {"dust_ebv": np.nan}  # looked up in a map afterward

FORCED = "forced_"


def column_names(*, fit_psf: bool, forced: bool = False) -> list[str]:
    """List the columns of a catalog.

    Parameters
    ----------
    fit_psf : bool
        Whether the catalog has the columns of PSF fits.
    forced : bool
        Whether the sources were given (`forced_segmentation`). Then the columns measured in this image have the prefix
        ``forced_``: those at the given positions, and, at the end, positions and shapes of the sources in this image.

    Returns
    -------
    list of str
        Names of the columns, in order.
    """
    names = [
        "label",
        "flagged_spatial_id",
        *CENTROID,
        *WINDOWED,
        *(PSF_POSITION if fit_psf else ()),
        *SKY,
        *SKY_WINDOWED,
        *(SKY_PSF if fit_psf else ()),
        *EXTENT,
        *SHAPE,
        *NEIGHBOR,
        *PROFILE,
        *_flux_names(fit_psf),
        "warning_flags",
        "image_flags",
        *(PSF_QUALITY if fit_psf else ()),
        "dust_ebv",
    ]
    if not forced:
        return names
    from_this_image = {*PROFILE, *_flux_names(fit_psf), *PSF_POSITION, *SKY_PSF, *PSF_QUALITY, "warning_flags"}
    return [FORCED + name if name in from_this_image else name for name in names] + [FORCED + name for name in REMEASURED]


def merge_forced(given: dict, remeasured: dict) -> dict:
    """Combine the columns of a catalog of given sources.

    Parameters
    ----------
    given : dict
        Columns measured at the given positions, with the shapes in the image in which the sources were detected.
    remeasured : dict
        Columns measured with the positions and shapes in this image.

    Returns
    -------
    dict
        Columns of both, by their names in the catalog.
    """
    return given | {FORCED + name: values for name, values in given.items()} | {FORCED + n: remeasured[n] for n in REMEASURED}


def _flux_names(fit_psf):
    apertures = itertools.chain.from_iterable((name, f"{name}_err") for name in aperture_names())
    return ["aper_bkg_flux", "aper_bkg_flux_err", *apertures, *(PSF_FLUX if fit_psf else ()), *SEGMENT_FLUX]


class Definition(NamedTuple):
    """Definition of a column in the schema.

    Attributes
    ----------
    dtype : numpy.dtype
        Data type of the values.
    unit : str or None
        Unit as astropy spells it; `None` without one.
    description : str
        What the column holds.
    """

    dtype: np.dtype
    unit: str | None
    description: str


def define(name: str) -> Definition:
    """Look up the definition of a column in the schema.

    Parameters
    ----------
    name : str
        Name of the column, with or without the prefix ``forced_``.

    Returns
    -------
    Definition
        Data type, unit and description.

    Raises
    ------
    KeyError
        The schema has no such column.
    """
    name = name.removeprefix(FORCED)
    for pattern, node in read_schema(CATALOG_COLUMNS)["definitions"].items():
        if re.fullmatch(pattern.replace("~radius~", "[0-9]{2}").replace("_~band~", ""), name):
            datatype = node["properties"]["data"]["properties"]["datatype"]["enum"][0]
            unit = None if node["unit"] == "none" else _SPELLINGS.get(node["unit"], node["unit"])
            return Definition(np.dtype(datatype.replace("bool8", "bool")), unit, node["description"])
    raise KeyError(name)
