"""Where stars are at another epoch: proper motion and parallax."""

from __future__ import annotations

import numpy as np

from rampflow.astrometry.region import angles, unit_vectors

MAS = np.pi / (180 * 3600 * 1000)  #: radians

#: What a catalog must know of a star for its position at another epoch.
MOTION = ("pmra", "pmdec", "parallax", "ref_epoch")


def propagate(ra, dec, pmra, pmdec, parallax, ref_epoch, epoch: float) -> tuple[np.ndarray, np.ndarray]:
    r"""Positions of stars as they are seen from the Earth at an epoch.

    With the unit vectors n to the star, p to the east and q to the north of it at the catalog's epoch t0, and the Earth's
    barycentric position b (au) at the epoch t::

        u = n + (t − t0) (µα* p + µδ q) − ϖ [(p·b) p + (q·b) q]

    is the direction at t: the star moves uniformly in the plane that touches the sphere at n (proper motion; the radial
    velocity is left out, which matters to the nearest stars alone), and is displaced against the Earth's position
    (parallax). stcal's catalog from S3 is moved in the same way. (Hipparcos Catalogue, ESA SP-1200, vol. 1, section 1.2.8;
    Roman at L2 is 1 % farther from the Sun: a hundredth of the parallax.)

    Parameters
    ----------
    ra, dec : array
        ICRS at `ref_epoch`, degrees.
    pmra, pmdec : array
        Proper motion, mas per year; `pmra` with the factor cos δ (µα*), as Gaia gives it.
    parallax : array
        mas.
    ref_epoch : array or float
        t0, Julian year.
    epoch : float
        t, Julian year.

    Returns
    -------
    ra, dec : numpy.ndarray
        Degrees, `ra` from 0 to 360; NaN where an argument is.
    """
    import erfa

    alpha, delta = np.radians(ra)[..., None], np.radians(dec)[..., None]
    east = np.concatenate([-np.sin(alpha), np.cos(alpha), np.zeros_like(alpha)], axis=-1)
    north = np.concatenate([-np.sin(delta) * np.cos(alpha), -np.sin(delta) * np.sin(alpha), np.cos(delta)], axis=-1)
    _, barycentric = erfa.epv00(2451545.0, (epoch - 2000) * 365.25)
    earth = barycentric["p"]
    years = epoch - np.asarray(ref_epoch, float)
    move_east = MAS * (years * pmra - parallax * (east @ earth))
    move_north = MAS * (years * pmdec - parallax * (north @ earth))
    return angles(unit_vectors(ra, dec) + move_east[..., None] * east + move_north[..., None] * north)


def propagate_error(error, pm_error, years) -> np.ndarray:
    """Standard error of a coordinate, mas, that time has widened by that of the proper motion (mas per year), where known.

    Ten years after its epoch, a faint star of Gaia DR3 has most of its error from the proper motion.
    """
    return np.hypot(error, years * np.nan_to_num(pm_error))


def at_epoch(stars: dict[str, np.ndarray], epoch: float) -> dict[str, np.ndarray]:
    """Stars of a catalog at an epoch: ra, dec, mag, ra_error, dec_error, NaN where unknown.

    Where the catalog knows motions (all of `MOTION`), stars without one are left out, as romancal does: their error grows
    without limit. Otherwise the catalog is taken as of the epoch.

    Parameters
    ----------
    stars : dict of numpy.ndarray
        Columns of the catalog: ra, dec (degrees), and where known mag, ra_error, dec_error (mas), pmra_error, pmdec_error
        (mas per year), and those of `MOTION`.
    epoch : float
        Julian year.
    """
    unknown = np.full(len(stars["ra"]), np.nan)
    result = {name: stars.get(name, unknown) for name in ("ra", "dec", "mag", "ra_error", "dec_error")}
    if not all(name in stars for name in MOTION):
        return result
    result["ra"], result["dec"] = propagate(*(stars[name] for name in ("ra", "dec", *MOTION)), epoch)
    years = epoch - stars["ref_epoch"]
    for axis in ("ra", "dec"):
        result[f"{axis}_error"] = propagate_error(result[f"{axis}_error"], stars.get(f"pm{axis}_error", unknown), years)
    moved = np.isfinite(result["ra"])
    return {name: values[moved] for name, values in result.items()}
