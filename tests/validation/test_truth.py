"""tests/validation/truth_*.py recover the numbers of products with known errors."""

import json
import sys
from pathlib import Path

import asdf
import numpy as np
import pytest
from astropy.table import Table

from rampflow import dq as flags

sys.path.insert(0, str(Path(__file__).parent))

import truth_jumps
import truth_slopes
import truth_stars

SHAPE = (120, 400)
PATTERN = [[1], [2], [3, 4], [5, 6], [7, 8], [9]]
GAIN = 1.8


def run(program, folder, truth, ours, theirs, monkeypatch):
    """Run one of the programs on one exposure; return its numbers."""
    paths = {"truth": truth, "ours": ours, "romancal": theirs, "plot": folder / "plot.png", "output": folder / "numbers.json"}
    monkeypatch.setattr(sys, "argv", ["program", *(str(word) for key, path in paths.items() for word in (f"--{key}", path))])
    assert program.main() == 0
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")
    return json.loads((folder / "numbers.json").read_text())


def write_image(path, rate, error, dq, jumps):
    roman = {
        "meta": {"cal_step": {"flat_field": "COMPLETE"}, "exposure": {"read_pattern": PATTERN}},
        "data": rate.astype(np.float32),
        "err": np.full(SHAPE, error, np.float16),
        "dq": dq,
        "chisq": np.full(SHAPE, 2.0 * (len(PATTERN) - 2), np.float16),
        "jump_indices": np.array(jumps, np.int16).reshape(-1, 3),
    }
    asdf.AsdfFile({"roman": roman}).write_to(path)


@pytest.fixture(scope="module")
def exposure(tmp_path_factory):
    """A scene from 1 to 1,000 e-/s, hits, and two images of it: without and with bias, noise, missed hits, false alarms."""
    folder = tmp_path_factory.mktemp("truth")
    rng = np.random.default_rng(1)
    scene = np.broadcast_to(np.geomspace(1, 1000, SHAPE[1]) / GAIN, SHAPE).astype(np.float32)
    row, column = (grid.ravel() for grid in np.mgrid[4 : SHAPE[0] : 8, 4 : SHAPE[1] : 8])
    hits = {"row": row, "column": column, "resultant": 1 + np.arange(row.size) % 5, "charge": np.where(row % 16 == 4, 50, 500)}
    hits = {name: values.astype(np.int32) for name, values in hits.items()}
    truth = {"scene": scene, "count_rate": np.full(SHAPE, np.nan, np.float32), "cosmic_rays": hits}
    asdf.AsdfFile({"truth": truth}).write_to(folder / "e_truth.asdf")

    large = hits["charge"] == 500
    found = np.stack([hits["resultant"], row, column], axis=1)
    dq = np.zeros(SHAPE, np.uint32)
    dq[:, 0], dq[found[large][:, 1], found[large][:, 2]] = flags.DO_NOT_USE, flags.JUMP_DET
    noise = rng.normal(0, 0.2, SHAPE)
    noise[row, column] = 0.3
    write_image(folder / "ours.asdf", scene + 0.1 * noise, 0.02, dq, found[large])
    late = found[large] + [1, 0, 0]  # a hit within a resultant may show in the next difference alone
    late[:, 0] = np.minimum(late[:, 0], len(PATTERN) - 1)
    false = [[2, 0, x] for x in range(1, SHAPE[1])]
    write_image(folder / "theirs.asdf", 1.1 * scene + noise, 0.1, dq, np.concatenate([late[: len(late) // 2], false]))
    return folder


@pytest.mark.slow
def test_truth_slopes_recovers_known_errors(exposure, monkeypatch):
    files = (exposure / f"{name}.asdf" for name in ("e_truth", "ours", "theirs"))
    bins = run(truth_slopes, exposure, *files, monkeypatch)["bins"]
    assert len(bins) == 15  # five in a decade
    assert sum(b["pixels"] for b in bins) <= SHAPE[0] * (SHAPE[1] - 1) - 15 * 50
    for b in bins:
        ours, theirs = b["rampflow"], b["romancal"]
        for image, true in ((ours, 0.0), (theirs, 0.1)):
            relative, uncertainty = image["relative"]
            assert abs(relative - true) < 5 * uncertainty
        np.testing.assert_allclose(theirs["bias"], np.multiply(theirs["sigma"], 0.1), rtol=1e-3)
        assert ours["pull_width"] == pytest.approx(1, abs=0.08)
        assert theirs["pull_width"] > 1.8
        assert ours["chisq"] == pytest.approx(2) and b["saturated"] == 0


def test_truth_jumps_recovers_known_errors(exposure, monkeypatch):
    files = (exposure / f"{name}.asdf" for name in ("e_truth", "ours", "theirs"))
    numbers = run(truth_jumps, exposure, *files, monkeypatch)
    hits = {"romancal": 0, "all": 0}
    for row in numbers["heights"]:
        assert row["rampflow"]["found"] == (0 if row["high"] < 100 else 1)
        assert row["rampflow"]["pull"] == pytest.approx(1.5, rel=2e-3)
        hits["all"] += row["hits"]
        hits["romancal"] += row["hits"] * row["romancal"]["found"]
    assert hits["all"] == 15 * 50
    assert hits["romancal"] == pytest.approx(7 * 50 / 2)  # 7 of the 15 rows have large hits
    assert {row["resultant"] for row in numbers["resultants"]} == {2, 3, 4, 5, 6}
    false = numbers["false_alarms"]
    assert sum(row["pixels"] * row["romancal"] for row in false) == pytest.approx(SHAPE[1] - 1)
    assert not any(row["rampflow"] for row in false)
    assert numbers["chance"] == pytest.approx((5 + 3) * 6.8e-6)


def test_truth_stars_recovers_known_errors(tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    n = 300
    x, y = (grid.ravel()[:n] * 60.0 for grid in np.mgrid[1:20, 1:20])
    magnitude = rng.uniform(17, 22, n)
    flux = 10 ** ((31.4 - magnitude) / 2.5)
    truth = {
        "ra": 270 + x * 1e-5,
        "dec": 60 + y * 1e-5,
        "x": x,
        "y": y,
        "mag": magnitude,
        "flux": flux,
        "type": ["galaxy"] * 5 + ["star"] * (n - 5),
    }
    truth = Table(truth)
    truth["x"][6], truth["y"][6] = truth["x"][7] + 5, truth["y"][7]  # two that spoil each other
    truth["mag"][6:8] = 20
    truth.write(tmp_path / "e_truth.ecsv")
    for name, east, psf in (("ours", 0.0, 0.0), ("theirs", 1.0, 0.02)):
        catalog = {
            "x_psf": np.array(truth["x"]) + 0.1,
            "y_psf": np.array(truth["y"]),
            "ra_psf": np.array(truth["ra"]) + east / 3.6e6 / np.cos(np.radians(truth["dec"])),
            "dec_psf": np.array(truth["dec"]),
            "psf_flux": flux * 10 ** (-0.4 * psf),
            "aper04_flux": flux * 0.9,
        }
        catalog["psf_flux"][10] = np.nan
        Table(catalog).write(tmp_path / f"{name}.parquet", format="parquet")
    files = (tmp_path / name for name in ("e_truth.ecsv", "ours.parquet", "theirs.parquet"))
    numbers = run(truth_stars, tmp_path, *files, monkeypatch)
    assert numbers["aperture_loss"] == pytest.approx(-2.5 * np.log10(0.9))
    assert sum(b["sources"] for b in numbers["bins"]) == n - 5 - 2
    assert sum(b["stars"] for b in numbers["bins"]) == n - 5 - 2 - 1
    for b in numbers["bins"]:
        for name, east, psf in (("rampflow", 0.0, 0.0), ("romancal", 1.0, 0.02)):
            np.testing.assert_allclose(b[name]["psf"], psf, atol=1e-9)
            np.testing.assert_allclose(b[name]["aperture"], 0, atol=1e-9)
            np.testing.assert_allclose(b[name]["east"], east, atol=1e-3)
            np.testing.assert_allclose(b[name]["north"], 0, atol=1e-3)
