"""Parameters of the search for stars: in the configuration under tweakreg, and of the program astrometric_catalog."""

from rampflow.astrometry.star_catalogs import GAIA_S3
from rampflow.step.declaration import Parameter

#: Names and defaults are romancal's; its abs_refcat is the configuration's astrometric_catalog.
SOURCE = Parameter(
    "astrometric_catalog",
    str,
    GAIA_S3,
    "source of the stars: GAIADR3_S3 (Gaia DR3 on S3), GAIADR3, GAIADR2, GAIADR1 or GAIAREFCAT (a web service), a file with "
    "columns ra and dec, or a HATS catalog or collection (a folder, or an address with s3:// or https://)",
)
SEARCH_PARAMETERS = (
    Parameter("vo_timeout", float, 1200.0, "total timeout for retrieving the astrometric catalog", unit="s", minimum=0),
    # Twice the largest distance of a match in tweakreg by default (abs_searchrad 6 and abs_tolerance 0.7).
    Parameter(
        "margin",
        float,
        15.0,
        "search margin around each image, to allow for pointing errors",
        unit="arcsec",
        minimum=0,
        in_romancal=False,
    ),
)
