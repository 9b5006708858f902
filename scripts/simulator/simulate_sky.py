"""Simulate a field of stars and galaxies, for any number of exposures.

It writes the catalog that simulate_exposure reads, and the bright stars as an astrometric catalog::

    python simulate_sky.py SKY.ecsv --ra 270 --dec 66 --radius 0.02 --stars 300 --galaxies 300 --astrometric STARS.ecsv
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from astropy.table import Table

# The library lies beside the simulator.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

STAR_MAGNITUDES = (17.0, 23.0)  #: AB; the brightest saturate in a long exposure
BRIGHT_MAGNITUDES = (10.0, 16.0)  #: AB; the brightest saturate in the first read, the faintest after a few
GALAXY_MAGNITUDES = (20.0, 25.0)
ASTROMETRIC_LIMIT = 21.0  #: AB magnitude of the faintest astrometric stars


def make_sky(ra: float, dec: float, radius: float, stars: int, galaxies: int, seed: int, bright: int = 0) -> Table:
    """Draw sources evenly over a disk on the sky.

    Parameters
    ----------
    ra, dec : float
        Center, degrees.
    radius : float
        Radius of the disk, degrees.
    stars, galaxies : int
        Number of each.
    seed : int
        Seed of the random numbers.
    bright : int
        Number of additional stars that saturate; the other sources don't depend on it.

    Returns
    -------
    astropy.table.Table
        Columns id, ra, dec (degrees), type (star or galaxy), mag (AB, the same in all filters), and for galaxies
        half_light_radius (arcsec, along the major axis), axis_ratio and position_angle (degrees, from north to east).
    """
    from astropy.table import Table, vstack

    rng, bright_rng = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    sky_ra, sky_dec = _draw_places(rng, ra, dec, radius, stars + galaxies)
    galaxy = np.arange(stars + galaxies) >= stars
    magnitude = np.concatenate([rng.uniform(*STAR_MAGNITUDES, stars), rng.uniform(*GALAXY_MAGNITUDES, galaxies)])
    sky = Table(
        {
            "id": np.arange(1, len(galaxy) + 1),
            "ra": sky_ra,
            "dec": sky_dec,
            "type": np.where(galaxy, "galaxy", "star"),
            "mag": magnitude,
            "half_light_radius": np.where(galaxy, rng.uniform(0.1, 0.4, len(galaxy)), 0),
            "axis_ratio": np.where(galaxy, rng.uniform(0.3, 1, len(galaxy)), 1),
            "position_angle": np.where(galaxy, rng.uniform(0, 180, len(galaxy)), 0),
        }
    )
    if not bright:
        return sky
    added = {"id": len(sky) + 1 + np.arange(bright), "type": ["star"] * bright}
    added["ra"], added["dec"] = _draw_places(bright_rng, ra, dec, radius, bright)
    added["mag"] = bright_rng.uniform(*BRIGHT_MAGNITUDES, bright)
    added |= {"half_light_radius": np.zeros(bright), "axis_ratio": np.ones(bright), "position_angle": np.zeros(bright)}
    return vstack([sky, Table(added)])


def _draw_places(rng: np.random.Generator, ra: float, dec: float, radius: float, count: int):
    """Right ascensions and declinations, degrees, spread evenly over a disk."""
    from rampflow.astrometry.region import angles, unit_vectors
    from simulator.optics import attitude

    distance, angle = radius * np.sqrt(rng.random(count)), rng.uniform(0, 2 * np.pi, count)
    vectors = unit_vectors(distance * np.cos(angle), distance * np.sin(angle)) @ attitude(0, 0, ra, dec, 0).T
    return angles(vectors)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="catalog to write (.ecsv)")
    parser.add_argument("--ra", type=float, default=270.0, help="center, degrees (default: %(default)s)")
    parser.add_argument("--dec", type=float, default=66.0, help="center, degrees (default: %(default)s)")
    parser.add_argument("--radius", type=float, default=0.02, help="radius of the field, degrees (default: %(default)s)")
    parser.add_argument("--stars", type=int, default=300, help="number of stars (default: %(default)s)")
    parser.add_argument("--galaxies", type=int, default=300, help="number of galaxies (default: %(default)s)")
    parser.add_argument(
        "--bright",
        type=int,
        default=0,
        help="number of additional stars of magnitude {:.0f} to {:.0f}, whose cores saturate (default: %(default)s)".format(
            *BRIGHT_MAGNITUDES
        ),
    )
    parser.add_argument("--seed", type=int, default=1, help="equal seeds make equal skies (default: %(default)s)")
    parser.add_argument("--astrometric", type=Path, help=f"also write the stars brighter than {ASTROMETRIC_LIMIT} (.ecsv)")
    args = parser.parse_args()
    sky = make_sky(args.ra, args.dec, args.radius, args.stars, args.galaxies, args.seed, args.bright)
    sky.write(args.output, format="ascii.ecsv", overwrite=True)
    if args.astrometric:
        bright = (sky["type"] == "star") & (sky["mag"] < ASTROMETRIC_LIMIT)
        sky["ra", "dec", "mag"][bright].write(args.astrometric, format="ascii.ecsv", overwrite=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
