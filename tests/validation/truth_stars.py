"""truth_stars: are the fluxes and positions of stars right? Both pipelines against the simulated truth, over the magnitude.

    python truth_stars.py --truth E_truth.ecsv … --ours E_cat.parquet … --romancal E_cat.parquet … --plot P.png --output P.json

The exposures are of a sky of ``simulate_sky.py``; the truth is the table of sources that ``simulate_exposure.py`` writes, the
catalogs are products. Stars count that have no other source within 1 arcsec, or only ones 5 magnitudes fainter, and whose PSF
position in both catalogs is within a pixel of the true one. Residuals are measured minus true: magnitudes from psf_flux and
from the aperture of 0.4 arcsec, and ra_psf, dec_psf on the sky. An aperture misses light: its residuals are relative to the
median of stars of magnitude 18.5 to 20 in rampflow's catalogs, the same for both.

The JSON lists ``bins`` of one magnitude: ``magnitude`` (center), ``sources`` (true ones), ``stars`` (found), and by pipeline
``psf``, ``aperture`` (mag), ``east``, ``north`` (mas), each with the 16th, 50th and 84th percentile; and has ``aperture_loss``
(mag).
"""

from __future__ import annotations

import sys

import numpy as np
import truth
from astropy.table import Table

PIXEL = 0.11  #: arcsec
ISOLATION, FAINTER = 1.0, 5.0  #: arcsec, magnitudes
BRIGHT = (18.5, 20.0)  #: magnitudes whose median sets the aperture's loss
APERTURE = "aper04_flux"
COLUMNS = ("x_psf", "y_psf", "ra_psf", "dec_psf", "psf_flux", APERTURE)
RESIDUALS = ("psf", "aperture", "east", "north")
FEWEST = 5


def isolated(sources: Table) -> np.ndarray:
    """Indices of the stars with no other source beside them that counts."""
    from scipy.spatial import cKDTree

    place, magnitude = np.stack([sources["x"], sources["y"]], axis=1), np.array(sources["mag"])
    spoiled = np.zeros(len(sources), bool)
    pairs = cKDTree(place).query_pairs(ISOLATION / PIXEL, output_type="ndarray")
    for first, second in ((0, 1), (1, 0)):
        near = magnitude[pairs[:, second]] < magnitude[pairs[:, first]] + FAINTER
        spoiled[pairs[near, first]] = True
    return np.flatnonzero((np.array(sources["type"]) == "star") & ~spoiled)


def residuals(sources: Table, catalog: dict[str, np.ndarray]) -> np.ndarray:
    """Residuals of each star, (4, stars) in the order of `RESIDUALS`; NaN where it is not found."""
    from scipy.spatial import cKDTree

    result = np.full((len(RESIDUALS), len(sources)), np.nan)
    measured = np.flatnonzero(np.all([np.isfinite(catalog[name]) for name in COLUMNS], axis=0))
    if not len(measured):
        return result
    places = np.stack([catalog["x_psf"], catalog["y_psf"]], axis=1)[measured]
    distance, index = cKDTree(places).query(np.stack([sources["x"], sources["y"]], axis=1))
    found = distance < 1
    row, star = measured[index[found]], sources[found]
    cosine = np.cos(np.radians(star["dec"]))
    with np.errstate(invalid="ignore", divide="ignore"):
        result[:, found] = [
            -2.5 * np.log10(catalog["psf_flux"][row] / star["flux"]),
            -2.5 * np.log10(catalog[APERTURE][row] / star["flux"]),
            (catalog["ra_psf"][row] - star["ra"]) * cosine * 3.6e6,
            (catalog["dec_psf"][row] - star["dec"]) * 3.6e6,
        ]
    return result


def read_residuals(exposures):
    """True magnitudes of the stars, and their residuals by pipeline."""
    magnitudes, found = [], {name: [] for name in truth.PIPELINES}
    for true, paths in exposures:
        sources = Table.read(true)
        sources = sources[isolated(sources)]
        magnitudes.append(np.array(sources["mag"]))
        for name, path in paths.items():
            table = Table.read(path, format="parquet")
            catalog = {column: np.array(table[column], np.float64) for column in COLUMNS}
            found[name].append(residuals(sources, catalog))
    magnitude = np.concatenate(magnitudes)
    result = {name: np.concatenate(parts, axis=1) for name, parts in found.items()}
    both = np.all([np.isfinite(r).all(axis=0) for r in result.values()], axis=0)
    bright = both & (magnitude > BRIGHT[0]) & (magnitude < BRIGHT[1])
    loss = float(np.median(result["rampflow"][1, bright])) if bright.any() else 0.0
    for values in result.values():
        values[1] -= loss
        values[:, ~both] = np.nan
    return magnitude, result, loss


def measure(magnitude, found, loss) -> dict:
    """Numbers of each bin; see the module."""
    bins = []
    for low in range(int(magnitude.min()), int(magnitude.max()) + 1):
        chosen = (magnitude >= low) & (magnitude < low + 1)
        stars = chosen & np.isfinite(found["rampflow"][0])
        if stars.sum() < FEWEST:
            continue
        row = {"magnitude": low + 0.5, "sources": int(chosen.sum()), "stars": int(stars.sum())}
        for name, values in found.items():
            percentiles = np.percentile(values[:, stars], (16, 50, 84), axis=1).T
            row[name] = dict(zip(RESIDUALS, percentiles.tolist(), strict=True))
        bins.append(row)
    return {"bins": bins, "aperture_loss": loss}


def draw(magnitude, found, bins):
    """The picture."""
    figure, axes = truth.new_figure(2, 2, sharex=True)
    titles = ("PSF photometry", "Aperture photometry, radius 0.4 arcsec", "Astrometry, east", "Astrometry, north")
    for index, (axis, key, title) in enumerate(zip(axes.flat, RESIDUALS, titles, strict=True)):
        axis.axhline(0, color=truth.GRAY, linewidth=1)
        axis.plot(magnitude, found["rampflow"][index], ".", color="#bbbbbb", markersize=2, zorder=0)
        for name, shift in zip(truth.PIPELINES, (-0.08, 0.08), strict=True):
            low, middle, high = np.array([b[name][key] for b in bins]).T
            place = np.array([b["magnitude"] for b in bins]) + shift
            axis.errorbar(place, middle, (middle - low, high - middle), linestyle="none", label=name, **truth.MARKS[name])
        reach = 1.3 * max(np.abs([b[name][key] for b in bins for name in truth.PIPELINES]).max(), 1e-3)
        axis.set(title=title, ylim=(-reach, reach), ylabel="measured - true (mag)" if index < 2 else "measured - true (mas)")
    for axis in axes[1]:
        axis.set_xlabel("true magnitude (AB)")
    axes[0, 0].legend(loc="lower left", title="median, and the middle 68 %", alignment="left")
    return figure


def main() -> int:
    """Run from the command line."""
    args = truth.parser(__doc__).parse_args()
    magnitude, found, loss = read_residuals(truth.exposures(args))
    numbers = measure(magnitude, found, loss)
    if not numbers["bins"]:
        raise SystemExit("no star of the truth is in both catalogs")
    truth.write(args, draw(magnitude, found, numbers["bins"]), numbers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
