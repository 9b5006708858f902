"""Columns of a source catalog: their order, and what the schema says of them."""

from __future__ import annotations

import itertools
import re
from typing import NamedTuple

import numpy as np

from rampflow.catalog.photometry import aperture_names
from rampflow.files.models import schema
from rampflow.files.tags import CATALOG_COLUMNS

#: Units of the schema that astropy spells otherwise.
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
NEIGHBOUR = ("nn_label", "nn_distance")
PROFILE = ("sharpness", "roundness1", "is_extended", "fluxfrac_radius_50")
PSF_FLUX = ("psf_flux", "psf_flux_err")
SEGMENT_FLUX = ("segment_flux", "segment_flux_err", "kron_flux", "kron_flux_err", "kron_abmag", "kron_abmag_err")
PSF_QUALITY = ("psf_flags", "psf_gof")

#: Columns that a catalog of given sources has twice: as given, and as measured in this image.
REMEASURED = ("flagged_spatial_id", *CENTROID, *SKY, *SHAPE, *NEIGHBOUR)

#: Columns that the format has and nothing measures yet: zero, or NaN.
UNMEASURED = dict.fromkeys(
    ("flagged_spatial_id", "image_flags", *(name for name in (*CENTROID, *WINDOWED) if name.endswith("_err"))), 0
)
UNMEASURED |= dict.fromkeys((name for name in (*SKY, *SKY_WINDOWED, *SKY_PSF) if name.endswith("_err")), 0)
UNMEASURED |= {"dust_ebv": np.nan}

FORCED = "forced_"


def column_names(*, fit_psf: bool, forced: bool = False) -> list[str]:
    """Columns of a catalog, in order.

    Parameters
    ----------
    fit_psf : bool
        With those of PSF fits.
    forced : bool
        Of sources that were given. Then what this image adds is prefixed: what is measured at the given places, and, at the
        end, positions and shapes of the same sources as they are in this image.
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
        *NEIGHBOUR,
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
    """Columns of a catalog of given sources, by the names that they have there.

    Parameters
    ----------
    given : dict
        Measured at the given places, with the shapes in the image that the sources were found in.
    remeasured : dict
        Measured with the positions and shapes of this image.
    """
    return given | {FORCED + name: values for name, values in given.items()} | {FORCED + n: remeasured[n] for n in REMEASURED}


def _flux_names(fit_psf):
    apertures = itertools.chain.from_iterable((name, f"{name}_err") for name in aperture_names())
    return ["aper_bkg_flux", "aper_bkg_flux_err", *apertures, *(PSF_FLUX if fit_psf else ()), *SEGMENT_FLUX]


class Definition(NamedTuple):
    """What the schema says of a column."""

    dtype: np.dtype
    unit: str | None  # as astropy spells it
    description: str


def define(name: str) -> Definition:
    """The definition of a column."""
    name = name.removeprefix(FORCED)
    for pattern, node in schema(CATALOG_COLUMNS)["definitions"].items():
        if re.fullmatch(pattern.replace("~radius~", "[0-9]{2}").replace("_~band~", ""), name):
            datatype = node["properties"]["data"]["properties"]["datatype"]["enum"][0]
            unit = None if node["unit"] == "none" else _SPELLINGS.get(node["unit"], node["unit"])
            return Definition(np.dtype(datatype.replace("bool8", "bool")), unit, node["description"])
    raise KeyError(name)
