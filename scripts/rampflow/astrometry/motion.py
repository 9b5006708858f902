"""Positions of stars at another epoch: proper motion and parallax."""

from __future__ import annotations

import numpy as np

from rampflow.astrometry.region import angles, unit_vectors

MAS = np.pi / (180 * 3600 * 1000)  #: radians

#: Columns with the motion of a star.
MOTION = ("pmra", "pmdec", "parallax", "ref_epoch")
#: Columns of a catalog that was moved to an epoch.
COLUMNS = ("ra", "dec", "mag", "ra_error", "dec_error", "pmra", "pmdec", "parallax")


def propagate(ra, dec, pmra, pmdec, parallax, ref_epoch, epoch: float) -> tuple[np.ndarray, np.ndarray]:
    r"""Compute the positions of stars as seen from the Earth at an epoch.

    With the unit vectors n to the star, p to the east and q to the north of it at the catalog's epoch t0, and the Earth's
    barycentric position b (au) at the epoch t, the direction at t is::

        u = n + (t − t0) (µα* p + µδ q) − ϖ [(p·b) p + (q·b) q]

    The star moves uniformly in the plane that touches the sphere at n (proper motion) and is displaced opposite to the Earth's
    position (parallax). The radial velocity is neglected; it matters for the nearest stars only. So is the distance of Roman
    at L2 from the Earth, a hundredth of the parallax. stcal moves its catalog from S3 in the same way. (Hipparcos Catalogue,
    ESA SP-1200, vol. 1, section 1.2.8.)

    Parameters
    ----------
    ra, dec : array-like
        Positions (ICRS) at `ref_epoch`, degrees, (n,).
    pmra, pmdec : array-like
        Proper motion, mas per year, (n,); `pmra` with the factor cos δ (µα*), as in Gaia.
    parallax : array-like
        Parallax, mas, (n,).
    ref_epoch : array-like or float
        Epoch t0 of the positions, Julian year.
    epoch : float
        Epoch t, Julian year.

    Returns
    -------
    ra : numpy.ndarray
        Right ascension at `epoch`, degrees from 0 to 360, (n,); NaN where an argument is.
    dec : numpy.ndarray
        Declination at `epoch`, degrees, in the same way.
    """
    import erfa

    east, north = axes(ra, dec)
    _, barycentric = erfa.epv00(2451545.0, (epoch - 2000) * 365.25)
    earth = barycentric["p"]
    years = epoch - np.asarray(ref_epoch, float)
    move_east = MAS * (years * pmra - parallax * (east @ earth))
    move_north = MAS * (years * pmdec - parallax * (north @ earth))
    return angles(unit_vectors(ra, dec) + move_east[..., None] * east + move_north[..., None] * north)


def propagate_error(error, pm_error, years) -> np.ndarray:
    """Propagate the standard error of a coordinate to another epoch.

    Parameters
    ----------
    error : numpy.ndarray
        Standard error at the first epoch, mas, (n,).
    pm_error : numpy.ndarray
        Standard error of the proper motion, mas per year, (n,); taken as 0 where NaN.
    years : numpy.ndarray or float
        Time between the epochs, years.

    Returns
    -------
    numpy.ndarray
        Standard error at the other epoch, mas, (n,).

    Notes
    -----
    Ten years after its epoch, most of the error of a faint star of Gaia DR3 comes from the proper motion.
    """
    return np.hypot(error, years * np.nan_to_num(pm_error))


def has_motions(stars: dict[str, np.ndarray]) -> bool:
    """Test whether a catalog has proper motions and the epoch of its positions.

    Parameters
    ----------
    stars : dict of numpy.ndarray
        Columns of the catalog.

    Returns
    -------
    bool
        Whether it has them.
    """
    return all(name in stars for name in ("pmra", "pmdec", "ref_epoch"))


def find_movable(stars: dict[str, np.ndarray], *, need_parallax: bool = True) -> np.ndarray:
    """Find the stars that can be moved to another epoch; in a catalog without motions, those with a position.

    Parameters
    ----------
    stars : dict of numpy.ndarray
        Columns of the catalog, see `at_epoch`.
    need_parallax : bool
        Exclude stars without a parallax.

    Returns
    -------
    numpy.ndarray
        Mask, bool, (n,).
    """
    names = ("ra", "dec", *MOTION) if has_motions(stars) else ("ra", "dec")
    needed = [name for name in names if name in stars and (need_parallax or name != "parallax")]
    return np.all(np.isfinite([stars[name] for name in needed]), axis=0)


def at_epoch(stars: dict[str, np.ndarray], epoch: float, *, need_parallax: bool = True) -> dict[str, np.ndarray]:
    """Move the stars of a catalog to an epoch.

    If the catalog has proper motions, stars without one are left out: their error grows without limit. The positions of a
    catalog without proper motions are used unchanged.

    Parameters
    ----------
    stars : dict of numpy.ndarray
        Columns of the catalog, (n,) each: ra, dec (degrees), and where known mag, ra_error, dec_error (mas), pmra_error,
        pmdec_error (mas per year), and those of `MOTION`.
    epoch : float
        The epoch, Julian year.
    need_parallax : bool
        Leave out stars without a parallax, as romancal does with Gaia's; otherwise these are moved by proper motion alone.

    Returns
    -------
    dict of numpy.ndarray
        The columns of `COLUMNS`, at `epoch`; NaN where unknown.
    """
    chosen = find_movable(stars, need_parallax=need_parallax)
    stars = {name: values[chosen] for name, values in stars.items()}
    unknown = np.full(int(chosen.sum()), np.nan)
    if not has_motions(stars):
        known = ("ra", "dec", "mag", "ra_error", "dec_error")
        return {name: stars[name] if name in known and name in stars else unknown for name in COLUMNS}
    result = {name: stars.get(name, unknown) for name in COLUMNS}
    parallax = np.nan_to_num(result["parallax"])
    ra, dec, pmra, pmdec = (stars[name] for name in ("ra", "dec", "pmra", "pmdec"))
    result["ra"], result["dec"] = propagate(ra, dec, pmra, pmdec, parallax, stars["ref_epoch"], epoch)
    years = epoch - stars["ref_epoch"]
    for axis in ("ra", "dec"):
        result[f"{axis}_error"] = propagate_error(result[f"{axis}_error"], stars.get(f"pm{axis}_error", unknown), years)
    return result


def displacement(stars, epoch: float, to_epoch: float) -> np.ndarray:
    """Compute the displacement of stars on the sky between two epochs.

    Parameters
    ----------
    stars : mapping
        Columns ra, dec (degrees) at `epoch`, pmra, pmdec (mas per year) and parallax (mas), (n,) each; motions are taken as 0
        where NaN.
    epoch, to_epoch : float
        The two epochs, Julian years.

    Returns
    -------
    numpy.ndarray
        Vectors to add to the directions at `epoch`, (n, 3).
    """
    import erfa

    ra, dec, pmra, pmdec, parallax = (np.asarray(stars[name], float) for name in ("ra", "dec", "pmra", "pmdec", "parallax"))
    east, north = axes(ra, dec)
    days = (np.array([epoch, to_epoch]) - 2000) * 365.25
    _, barycentric = erfa.epv00(2451545.0, days)
    earth = barycentric["p"][1] - barycentric["p"][0]
    years, parallax = to_epoch - epoch, np.nan_to_num(parallax)
    move_east = MAS * (years * np.nan_to_num(pmra) - parallax * (east @ earth))
    move_north = MAS * (years * np.nan_to_num(pmdec) - parallax * (north @ earth))
    return move_east[:, None] * east + move_north[:, None] * north


def axes(ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the unit vectors to the east and to the north at positions on the sky.

    Parameters
    ----------
    ra, dec : array-like
        Positions, degrees, any shape.

    Returns
    -------
    east : numpy.ndarray
        Unit vectors to the east, (..., 3).
    north : numpy.ndarray
        Unit vectors to the north, (..., 3).
    """
    alpha, delta = np.radians(ra)[..., None], np.radians(dec)[..., None]
    east = np.concatenate([-np.sin(alpha), np.cos(alpha), np.zeros_like(alpha)], axis=-1)
    north = np.concatenate([-np.sin(delta) * np.cos(alpha), -np.sin(delta) * np.sin(alpha), np.cos(delta)], axis=-1)
    return east, north
