"""Stars, their astrometric catalog, and exposures of them with errors of the pointing: the input of tweakreg."""

import contextlib
import copy
import datetime
import functools
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tweakreg
from simulator.optics import FOCAL_PLANE_CENTER, Projection, attitude, pointing_at
from simulator.simulate_references import Detector, detector_center, make_distortion
from small_files import write_image

from rampflow.alignment.product import read_solution
from rampflow.astrometry.region import angles, unit_vectors
from rampflow.astrometry.star_table import Origin, write_star_table
from rampflow.files.tags import TIME
from rampflow.files.yaml_tree import tagged
from rampflow.wcs.building import build_wcs
from rampflow.wcs.conversion import tree_of_wcs, wcs_of_tree

SIZE = 4088  # the catalogs are those of full frames; the image files are of a few pixels
RA, DEC, ROLL = 270.0, 66.0, 60.0
MAS = 3.6e6  # per degree
EPOCH = 2027.0  # Julian year of the catalog and, unless they say otherwise, of the exposures


@functools.cache
def _distortion(detector):
    model = make_distortion(Detector(detector, SIZE + 8, 1))
    return next(iter(model.values())).coordinate_distortion_transform


def time_entry(time):
    """A time as it is stored in the metadata of a file."""
    return tagged(time.isoformat(timespec="milliseconds"), TIME)


class Sky:
    """Stars, their astrometric catalog, and exposures of them with errors of the pointing, as files.

    Parameters
    ----------
    folder : pathlib.Path
    density : float
        Stars on one detector.
    in_catalog : float
        How many of them are in the astrometric catalog.
    radius : float
        Of the field, degrees.
    motion : (float, float), optional
        Mean and standard deviation of the stars' proper motions along each axis, mas per year; the catalog knows them.
    """

    def __init__(
        self, folder, *, density=200, in_catalog=65, seed=1, radius=0.2, ra=RA, dec=DEC, with_errors=False, motion=None
    ):
        self.folder, self.rng = folder, np.random.default_rng(seed)
        self.ra, self.dec = ra, dec
        count = int(density * np.pi * radius**2 / (SIZE * 0.11 / 3600) ** 2)
        distance, angle = radius * np.sqrt(self.rng.random(count)), self.rng.uniform(0, 2 * np.pi, count)
        plane = np.radians(distance)[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
        vectors = np.column_stack([np.ones(count), plane]) @ attitude(0, 0, ra, dec, 0).T
        self.stars = angles(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        self.mag = 15.5 + 7 * self.rng.beta(1.5, 1, count)
        self.motion = np.zeros((2, count)) if motion is None else np.random.default_rng(seed + 1).normal(*motion, (2, count))
        self.images, self.catalogs, self.truth = [], [], {}
        bright = self.mag <= np.sort(self.mag)[int(count * in_catalog / density)]
        ra, dec = (values[bright] for values in self.stars)
        self.catalog_stars = np.array([ra, dec])
        stars = {"ra": ra, "dec": dec, "mag": self.mag[bright]}
        if motion is not None:
            stars |= dict(zip(("pmra", "pmdec"), self.motion[:, bright], strict=True))
        if with_errors:  # mas; a catalog that is worse for faint stars
            error = 0.05 * 10 ** (0.25 * (stars["mag"] - 16))
            stars |= {"ra_error": error, "dec_error": error}
            stars["ra"] = ra + self.rng.normal(0, error) / MAS / np.cos(np.radians(dec))
            stars["dec"] = dec + self.rng.normal(0, error) / MAS
        self.catalog = self.write_catalog("stars.parquet", stars)

    def write_catalog(self, name, stars, status="SUCCESS", reason=""):
        path = self.folder / name
        unknown = np.full(len(stars.get("ra", ())), np.nan)
        stars = {"ra": unknown, "dec": unknown, "mag": unknown, "ra_error": unknown, "dec_error": unknown} | stars
        write_star_table(path, stars, Origin("simulated", EPOCH, [], len(unknown), status, reason))
        return path

    def expose(
        self,
        stem,
        detector="WFI07",
        *,
        error=(0.0, 0.0),
        roll_error=0.0,
        dither=(0.0, 0.0),
        group=None,
        sources=None,
        catalog=True,
        status="INCOMPLETE",
        ramp_fit="COMPLETE",
        noise=0.0015,
        years=0.0,
        header=None,
    ):
        """Write an image and its source catalog; errors and dithers in arcsec to the east and north, of the roll in degrees."""
        v2, v3 = detector_center(Detector(detector, SIZE + 8, 1))
        cosine = np.cos(np.radians(self.dec))
        ra, dec = self.ra + dither[0] / 3600 / cosine, self.dec + dither[1] / 3600
        pointing = FOCAL_PLANE_CENTER if group else (v2, v3)
        matrix = attitude(*pointing, ra, dec, ROLL)
        ra_ref, dec_ref, roll_ref = pointing_at(matrix, v2, v3)
        wcsinfo = {
            "v2_ref": v2,
            "v3_ref": v3,
            "roll_ref": roll_ref + roll_error,
            "ra_ref": ra_ref + error[0] / 3600 / cosine,
            "dec_ref": dec_ref + error[1] / 3600,
        }
        wcsinfo = {name: float(value) for name, value in wcsinfo.items()}
        distortion = copy.deepcopy(_distortion(detector))
        tree = tree_of_wcs(build_wcs(distortion, wcsinfo, 1.0, (SIZE, SIZE)))
        self.truth[stem] = Projection(distortion, v2, v3, matrix, 1.0)
        meta = {f"wcsinfo.{name}": value for name, value in wcsinfo.items()}
        meta |= {
            "wcs": tree,
            "cal_step.tweakreg": status,
            "cal_step.ramp_fit": ramp_fit,
            "wcsinfo.s_region": "POLYGON ICRS  0 0 1 0 1 1",
        }
        meta |= {"observation.observation_id": group or stem, "instrument.detector": detector}
        middle = datetime.datetime(2000, 1, 1, 12) + datetime.timedelta(days=365.25 * (EPOCH + years - 2000))
        for name, seconds in (("start_time", -60), ("mid_time", 0), ("end_time", 60)):
            meta[f"exposure.{name}"] = time_entry(middle + datetime.timedelta(seconds=seconds))
        meta |= header or {}
        image = write_image(self.folder / f"{stem}_flat.asdf", np.zeros((8, 8)), meta)
        self.images.append(image)
        self.catalogs.append(self.folder / f"{stem}_cat.parquet" if catalog else "N/A")
        if catalog:
            self._detect(stem, detector, wcs_of_tree(tree), sources, noise, years)
        return image

    def _detect(self, stem, detector, wcs, sources, noise, years):
        near = unit_vectors(*self.stars) @ unit_vectors(*self.truth[stem].to_sky([SIZE / 2], [SIZE / 2]))[0]
        near = np.flatnonzero(near > np.cos(np.radians(0.1)))
        ra, dec = (values[near] for values in self.stars)
        moved = years / MAS * self.motion[:, near]
        x, y = self.truth[stem].to_pixel(ra + moved[0] / np.cos(np.radians(dec)), dec + moved[1])
        seen = np.flatnonzero((x > 0) & (x < SIZE - 1) & (y > 0) & (y < SIZE - 1))
        if sources is not None:
            seen = seen[np.argsort(self.mag[near[seen]])][:sources]
        error = 0.0007 * 10 ** (0.3 * (self.mag[near[seen]] - 17.5))
        x, y = (v[seen] + self.rng.normal(0, np.hypot(error, noise)) for v in (x, y))
        self.detected = near[seen]
        columns = {
            "label": np.arange(len(seen), dtype=np.int32),
            "x_centroid": x.astype(np.float32) + np.float32(0.01),
            "y_centroid": y.astype(np.float32),
            "x_psf": x.astype(np.float32),
            "y_psf": y.astype(np.float32),
            "x_psf_err": error.astype(np.float32),
            "y_psf_err": error.astype(np.float32),
            "warning_flags": np.zeros(len(seen), np.int32),
        }
        for suffix, (px, py) in {"": "xy", "_centroid": "xy", "_psf": ("x_psf", "y_psf")}.items():
            pixels = [columns[f"{p}_centroid" if p in "xy" else p] for p in (px, py)]
            columns[f"ra{suffix}"], columns[f"dec{suffix}"] = wcs(*pixels)
        schema = {b"roman.meta.wcsinfo.s_region": b"before", b"other": b"kept"}
        schema[b"roman.meta.instrument.detector"] = detector.encode()
        table = pa.table(columns).replace_schema_metadata(schema)
        pq.write_table(table, self.folder / f"{stem}_cat.parquet")

    def align(self, name="out", *, without=(), own_catalogs=(), **parameters):
        """Run the step; the error of every exposure's solution in mas, and the result's folder."""
        chosen = [(i, c) for i, c in zip(self.images, self.catalogs, strict=True) if tweakreg.stem_of_image(i) not in without]
        output, summary = self.folder / f"{name}_tweakreg.asdf", self.folder / f"{name}.json"
        arguments = [output, summary, "--images", *(i for i, _ in chosen), "--catalogs", *(c for _, c in chosen)]
        arguments += ["--astrometric_catalog", self.catalog, "--own_catalogs", *own_catalogs]
        for key, value in parameters.items():
            arguments += [f"--{key}", str(value).lower() if isinstance(value, bool) else value]
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            assert tweakreg.main([str(a) for a in arguments]) == 0, said.getvalue()
        return Result(self, output, json.loads(summary.read_text()), said.getvalue())


class Result:
    """The result of a run of the step."""

    def __init__(self, sky, path, summary, said):
        self.sky, self.path, self.summary, self.said = sky, path, summary, said

    def __getitem__(self, stem):
        return read_solution(self.path, stem)

    def statuses(self):
        return {stem: entry["status"] for stem, entry in self.summary["exposures"].items()}

    def error(self, stem):
        """Offsets (n, 2) of the aligned WCS from the truth over the detector, mas to the east and north."""
        x, y = (grid.ravel() for grid in np.meshgrid(*2 * [np.linspace(0, SIZE - 1, 9)]))
        ra, dec = wcs_of_tree(self[stem]["wcs"])(x, y)
        true_ra, true_dec = self.sky.truth[stem].to_sky(x, y)
        east = ((ra - true_ra + 180) % 360 - 180) * np.cos(np.radians(true_dec))
        return MAS * np.column_stack([east, dec - true_dec])

    def offset(self, stem):
        """Largest component of the median offset, mas."""
        return np.abs(np.median(self.error(stem), axis=0)).max()

    def scatter(self, stem):
        """Rms of the offsets, mas."""
        return np.sqrt((self.error(stem) ** 2).sum(axis=1).mean())
