"""false_alarms: how often does tweakreg align an exposure to a catalog that shows other stars, and refuse a good one?

    python false_alarms.py [--false N] [--good N] [--seed N] [--processes N] --output P.json [--table P.md]

Lists of sources on a full detector (4088 pixels of 0.11 arcsec) and of stars, without images. For false alarms, the density of
the stars is from 10³ to 3 · 10⁶ per square degree, and the number of sources from 20 to 5,000, evenly in the logarithm. The
stars are

* ``random``: all over the field, as the sources are;
* ``clustered``: both gather in the same clusters, but not at the same places;
* ``beyond``: the field's own, with a pointing error of 20 to 60 arcsec, beyond the search;
* ``mirrored``: the field's own, mirrored in right ascension;
* ``doubles``: random, and each source and star has another one 0.15 to 0.4 arcsec beside it;
* ``repeated``: as ``beyond``, and there are two exposures of the field, which share most of their sources.

Half of the exposures are aligned with ``abs_minobj`` 10, half with 4; a third each with the geometries ``general`` and
``shift``, the others with ``rshift`` or ``rscale``.

Good exposures have 10 to 3,000 stars in common with the catalog, a pointing error of up to 5.9 arcsec in any direction and 0.01
degrees of roll, positions that scatter by 1 to 20 mas, up to 20 times as many other sources (galaxies and faint stars), and up
to 5 times as many other stars in the catalog.

The JSON has for each kind ``trials``, ``accepted``, and for the false ones the statistic (`statistic`) at its lowest values.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

SIZE, SCALE = 4088, 0.11
SIDE = SIZE * SCALE  #: arcsec
MARGIN = 80.0  #: arcsec; stars lie that far around the image
DENSITIES = (1e3, 3e6)  #: stars per square degree
SOURCES = (20, 5000)
EDGES = (1e3, 1e4, 1e5, 1e6, 3e6)  #: of the table
KINDS = ("random", "clustered", "beyond", "mirrored", "doubles", "repeated")
#: Kinds of the trials in turn; repeated ones take longest.
TURNS = (*KINDS[:-1], *KINDS)
FALSE_ALARM = 1e-6
#: Share of the lowest values that the tail is extrapolated from.
TAIL = 0.02


@functools.cache
def full_detector():
    """The WCS of a full detector and its reference angles."""
    from simulator.optics import attitude, pointing_at
    from simulator.simulate_references import Detector, detector_center, make_distortion

    from rampflow.wcs.building import build_wcs

    detector = Detector("WFI07", SIZE + 8, 1)
    v2, v3 = detector_center(detector)
    pointing = pointing_at(attitude(v2, v3, 270.0, 66.0, 60.0), v2, v3)
    header = dict(zip(("ra_ref", "dec_ref", "roll_ref", "v2_ref", "v3_ref"), map(float, (*pointing, v2, v3)), strict=True))
    distortion = next(iter(make_distortion(detector).values())).coordinate_distortion_transform
    wcs = build_wcs(distortion, header, 1.0, (SIZE, SIZE))
    return wcs, {name: header[name] for name in ("v2_ref", "v3_ref", "roll_ref")}


def exposure(x, y, error, name: str = "exposure"):
    """An exposure with sources at some pixels, each with a standard deviation (pixels)."""
    from rampflow.alignment.exposures import CatalogedExposure, SourcePositions

    return CatalogedExposure(name, name, *full_detector(), SourcePositions(x, y, np.broadcast_to(error, x.shape)))


def uniform(rng, count: int, margin: float = 0.0) -> np.ndarray:
    """Pixels (2, n), evenly over the image and a margin (arcsec) around it."""
    return rng.uniform(-margin / SCALE, SIZE - 1 + margin / SCALE, (2, count))


def clustered(rng, count: int, margin: float, centers: np.ndarray) -> np.ndarray:
    """Pixels (2, n): half of them evenly, half in clusters of 20 arcsec around some pixels."""
    half = count // 2
    places = centers[:, rng.integers(0, centers.shape[1], half)] + rng.normal(0, 20 / SCALE, (2, half))
    return np.concatenate([uniform(rng, count - half, margin), places], axis=1)


def doubled(rng, places: np.ndarray) -> np.ndarray:
    """Half of the places, each with another one 0.15 to 0.4 arcsec beside it."""
    half = places[:, : -(-places.shape[1] // 2)]
    angle, distance = rng.uniform(0, 2 * np.pi, half.shape[1]), rng.uniform(0.15, 0.4, half.shape[1]) / SCALE
    return np.concatenate([half, half + distance * np.array([np.cos(angle), np.sin(angle)])], axis=1)


def in_image(places: np.ndarray) -> np.ndarray:
    """Those of some pixels (2, n) that are on the image."""
    return places[:, ((places > 0) & (places < SIZE - 1)).all(axis=0)]


def logarithmic(rng, low: float, high: float) -> float:
    """A number between two, evenly in the logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def plane_of(places: np.ndarray) -> np.ndarray:
    """Positions (n, 2) in the exposure's plane, arcsec, of pixels (2, n)."""
    from tweakwcs import RomanWCSCorrector

    wcs, angles = full_detector()
    return np.array(RomanWCSCorrector(wcs, angles).det_to_tanp(*places)).T


def pointing_error(rng, low: float, high: float, roll: float):
    """A shift by `low` to `high` arcsec in any direction, and a roll by up to `roll` degrees either way."""
    from rampflow.alignment.affine import affine_of_terms

    size, angle = rng.uniform(low, high), rng.uniform(0, 2 * np.pi)
    return affine_of_terms(np.array([size * np.cos(angle), size * np.sin(angle), np.radians(rng.uniform(-roll, roll))]))


def false_field(rng, kind: str, density: float, n_sources: int):
    """Pixels of the sources (2, n), and positions of the stars in the plane (m, 2), arcsec."""
    count = max(int(density * ((SIDE + 2 * MARGIN) / 3600) ** 2), 1)
    if kind in ("beyond", "mirrored", "repeated"):
        places = uniform(rng, count, MARGIN)
        sources = in_image(places)[:, :n_sources]
        sources = np.concatenate([sources, uniform(rng, max(n_sources - sources.shape[1], 0))], axis=1)
        if kind != "mirrored":
            return sources, pointing_error(rng, 20, 60, 0.01)(plane_of(places))
        return sources, plane_of(places) * [-1, 1]
    if kind == "clustered":
        centers = uniform(rng, 5)
        sources = in_image(clustered(rng, n_sources, 0.0, centers))
        return sources, plane_of(clustered(rng, count, MARGIN, centers))
    sources, places = uniform(rng, n_sources), uniform(rng, count, MARGIN)
    if kind == "doubles":
        sources, places = in_image(doubled(rng, sources)), doubled(rng, places)
    return sources, plane_of(places)


def matchings(minobj: int, geometry: str):
    """The step's own defaults, but for the least number of matches and the geometry."""
    import tweakreg

    parameters = {p.name: p.default for p in tweakreg.STEP.parameters}
    return tweakreg.matchings({**parameters, "abs_minobj": minobj, "abs_fitgeometry": geometry})


def statistic(member, stars: np.ndarray, absolute) -> float:
    """Logarithm (base 10) of the bound of the false-alarm probability, of the start or of its solution; above 0, too.

    It is NaN where so few sources match that there is no start.
    """
    from rampflow.alignment.evidence import RADII, pairs_of, poisson_tail
    from rampflow.alignment.joint_solution import solve

    start, _ = absolute.align(member, stars)
    if start is None:
        return np.nan
    fit = solve([member], [start], stars, np.zeros(len(stars)), geometry=absolute.fitgeometry)[0]
    pairs = [pairs_of(member, affine, stars) for affine in (start, fit.affine)]
    return float(min((poisson_tail(p.found, p.chance) + np.log10(absolute.trials(RADII) * len(RADII))).min() for p in pairs))


def align(members: list, stars: np.ndarray, matching) -> list:
    """What the step makes of some exposures."""
    from rampflow.alignment.outcomes import align_association

    return align_association(members, stars, np.zeros(len(stars)), *matching)


def false_trial(seed: int) -> dict:
    """One exposure, and stars that are not its own."""
    rng = np.random.default_rng([1, seed])
    kind, minobj = TURNS[seed % len(TURNS)], (10, 4)[seed // len(TURNS) % 2]
    geometry = ("general", "shift", "general", "rshift", "shift", "rscale")[seed // (2 * len(TURNS)) % 6]
    density, n_sources = logarithmic(rng, *DENSITIES), int(logarithmic(rng, *SOURCES))
    sources, stars = false_field(rng, kind, density, n_sources)
    error, matching = logarithmic(rng, 0.005, 0.1), matchings(minobj, geometry)
    member = exposure(*sources, error)
    members = [member]
    if kind == "repeated":
        again = sources[:, rng.random(sources.shape[1]) < 0.8]
        members.append(exposure(*(again + rng.normal(0, error, again.shape)), error, "again"))
    directions = member.to_sky(stars)
    return {
        "kind": kind,
        "density": density,
        "sources": n_sources,
        "minobj": minobj,
        "geometry": geometry,
        "statistic": statistic(member, directions, matching[1]),
        "accepted": any(outcome.wcs is not None for outcome in align(members, directions, matching)),
    }


def good_trial(seed: int) -> dict:
    """One exposure and its own stars."""
    rng = np.random.default_rng([2, seed])
    matched = round(logarithmic(rng, 10, 3000)) if seed % 5 else 10
    noise = logarithmic(rng, 0.001, 0.02) / SCALE
    others, foreign = (int(matched * (factor ** rng.random() - 1)) for factor in (20, 5))
    true = uniform(rng, matched)
    # Stars whose neighbors can be taken for them are not in common: the matching leaves them out.
    places = np.concatenate([true, uniform(rng, others)], axis=1)
    stars = pointing_error(rng, 0, 5.9, 0.01)(plane_of(np.concatenate([true, uniform(rng, foreign, MARGIN)], axis=1)))
    scatter = noise * rng.lognormal(0, 0.5, places.shape[1])
    member = exposure(*(places + rng.normal(0, scatter, places.shape)), scatter)
    outcome = align([member], member.to_sky(stars), matchings(10, "general"))[0]
    return {
        "matched": matched,
        "sources": places.shape[1],
        "stars": len(stars),
        "accepted": outcome.wcs is not None,
        "reason": outcome.reason,
        "n_matches": len(outcome.star),
    }


def quiet() -> None:
    """Let no process say what it does, nor take more than one thread."""
    logging.disable(logging.WARNING)
    os.environ["OMP_NUM_THREADS"] = "1"


def tail(values: np.ndarray, trials: int) -> dict:
    """Extrapolate the low tail of the statistic: it falls exponentially below the value that a share `TAIL` is below.

    Returns
    -------
    dict
        ``lowest``; ``decades``, by how many the probability falls when the statistic does by one; ``at_one_in_a_million``, the
        value that 10⁻⁶ of all trials are below.
    """
    low = np.sort(values)[: max(int(TAIL * trials), 20)]
    scale = float((low[-1] - low[:-1]).mean())
    share = len(low) / trials
    return {
        "lowest": float(low[0]),
        "decades": 1 / (scale * np.log(10)),
        "at_one_in_a_million": float(low[-1] - scale * np.log(share / FALSE_ALARM)),
    }


def summarize(false: list[dict], good: list[dict]) -> dict:
    """What the trials gave."""
    values = np.array([t["statistic"] for t in false])
    rows = []
    for low, high in zip(EDGES[:-1], EDGES[1:], strict=True):
        chosen = [t for t in false if low <= t["density"] < high]
        known = [t["statistic"] for t in chosen if np.isfinite(t["statistic"])]
        rows.append(
            {
                "densities": [low, high],
                "trials": len(chosen),
                "with_a_start": len(known),
                "accepted": sum(t["accepted"] for t in chosen),
                "lowest": min(known, default=None),
            }
        )
    kinds = {
        kind: {
            "trials": sum(t["kind"] == kind for t in false),
            "accepted": sum(t["accepted"] for t in false if t["kind"] == kind),
            "lowest": min((t["statistic"] for t in false if t["kind"] == kind and np.isfinite(t["statistic"])), default=None),
        }
        for kind in KINDS
    }
    goods = [
        {"matched": [low, high], "trials": len(chosen), "refused": sum(not t["accepted"] for t in chosen)}
        for low, high in ((10, 11), (11, 40), (40, 300), (300, 3001))
        for chosen in [[t for t in good if low <= t["matched"] < high]]
    ]
    refused = [t for t in good if not t["accepted"]]
    finite = values[np.isfinite(values)]
    return {"false": rows, "kinds": kinds, "tail": tail(finite, len(false)), "good": goods, "refused": refused}


def table(summary: dict) -> str:
    """The summary as text for a document."""

    def number(value):
        return "–" if value is None else f"{value:.1f}".replace("-", "−")

    lines = [
        "| stars per square degree | trials | with a start | accepted | lowest log₁₀ of the bound |",
        "|---|---|---|---|---|",
    ]
    for row in summary["false"]:
        densities = " to ".join(f"{d:,.0f}" for d in row["densities"])
        cells = (densities, f"{row['trials']:,}", f"{row['with_a_start']:,}", row["accepted"], number(row["lowest"]))
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += ["", "| stars | trials | accepted | lowest log₁₀ of the bound |", "|---|---|---|---|"]
    for kind, row in summary["kinds"].items():
        lines.append(f"| {kind} | {row['trials']:,} | {row['accepted']} | {number(row['lowest'])} |")
    lines += ["", "| good exposures: stars in common | trials | refused |", "|---|---|---|"]
    for row in summary["good"]:
        low, high = row["matched"][0], row["matched"][1] - 1
        lines.append(f"| {low if low == high else f'{low:,} to {high:,}'} | {row['trials']:,} | {row['refused']} |")
    return "\n".join(lines) + "\n"


def run_trials(pool, trial, seeds: range) -> list[dict]:
    """Run trials in the processes of a pool, and print the number done to standard error after every 500.

    Parameters
    ----------
    pool : multiprocessing.pool.Pool
    trial : callable
        `false_trial` or `good_trial`.
    seeds : range

    Returns
    -------
    list of dict
        What the trials returned, in the order in which they ended.
    """
    results = []
    for result in pool.imap_unordered(trial, seeds, 10):
        results.append(result)
        if len(results) % 500 == 0:
            accepted = sum(r["accepted"] for r in results)
            print(f"{trial.__name__}: {len(results)} of {len(seeds)} done, {accepted} accepted", file=sys.stderr, flush=True)
    return results


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--false", type=int, default=12000, metavar="N", help="exposures with others' stars (default: %(default)s)"
    )
    parser.add_argument("--good", type=int, default=3000, metavar="N", help="exposures with their own (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="number of the first trial (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), metavar="N", help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, metavar="P.json")
    parser.add_argument("--table", type=Path, metavar="P.md")
    arguments = parser.parse_args(argv)
    with multiprocessing.get_context("spawn").Pool(arguments.processes, quiet) as pool:
        first = arguments.seed
        false = run_trials(pool, false_trial, range(first, first + arguments.false))
        good = run_trials(pool, good_trial, range(first, first + arguments.good))
    summary = summarize(false, good)
    arguments.output.write_text(json.dumps(summary, indent=1) + "\n")
    if arguments.table:
        arguments.table.write_text(table(summary))
    print(table(summary), json.dumps(summary["tail"]), sep="\n")
    return int(any(row["accepted"] for row in summary["false"]) or bool(summary["refused"]))


if __name__ == "__main__":
    sys.exit(main())
