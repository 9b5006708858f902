"""The results folder of a visit of all detectors: numbers, thumbnails and pictures, with some without products."""

import json

import numpy as np
from PIL import Image
from survey_rows import FAULTS, plant, simulate_survey, write_rows

from rampflow.chain import STATUSES
from rampflow.pictures.footprints import SIDE
from rampflow.pictures.image import from_tangent_plane
from rampflow.pictures.overview_plots import CENTERS

DITHERS, DETECTORS = 10, 18
SIZE = DITHERS * DETECTORS
POINTING, ROLL, DITHER = np.array([0.05, -10.0]), 40.0, 0.004  #: degrees; the field has right ascension 0 in it
FAILED, KILLED, EXCLUDED = 5, 40, 100  #: rows
REASON = "x.asdf: data is <not> an array"
#: A picture of one pixel.
PICTURE = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="


def write_visit(folder, name="visit"):
    """Write the folder.

    Returns
    -------
    rows : list of dict
        Numbers of each exposure.
    planted : dict
        Fault of each planted exposure by its name.
    options : list of str
        Options of report.py besides the page.
    """
    rows = [_place(row) for row in simulate_survey(SIZE, per_visit=DITHERS)]
    planted = {}
    for place, fault in enumerate(FAULTS):
        row = 13 + 25 * place
        rows[row] = plant(rows[row], fault)
        planted[rows[row]["stem"]] = fault
    lost = [rows[place] for place in (FAILED, KILLED, EXCLUDED)]
    made = [row for row in rows if row not in lost]
    write_rows(folder, made)
    lists = {"images": [], "ramps": []}
    for row in made:
        Image.new("L", (300, 300), 90).save(folder / f"{row['stem']}_cal_thumb.png")
        facts = {"stem": row["stem"], "resultants": 6, "shape": [4088, 4088], "statuses": dict.fromkeys(STATUSES, "COMPLETE")}
        facts |= {"warnings": [], "ran": [], "software": "rampflow 1.0", "context": "roman_0001.pmap"}
        pictures = [{"title": "Calibrated image", "caption": "A pixel.", "source": PICTURE}]
        for kind, content in (("images", {"facts": facts, "pictures": pictures}), ("ramps", {"pictures": []})):
            path = folder / f"{row['stem']}_{kind}.json"
            path.write_text(json.dumps(content))
            lists[kind].append(str(path))
    logs = folder / "logs"
    for row, step, line in ((lost[0], "saturation", f"ERROR :: saturation: {REASON}"), (lost[1], "refpix", "INFO :: begins")):
        (logs / row["stem"]).mkdir(parents=True)
        (logs / row["stem"] / f"{step}.log").write_text(f"2026-11-28T22:00:00.000Z :: rampflow :: {line}\n")
    options = ["--logs", str(logs), "--missing", *map(_known, lost[:2]), "--excluded", _known(lost[2])]
    for kind, paths in lists.items():
        (folder / f"{kind}.txt").write_text("\n".join(paths))
        options += [f"--{kind}", f"@{folder / kind}.txt"]
    return rows, planted, options


def _place(row):
    """The exposure at its place in the focal plane, dithered in steps of `DITHER`."""
    x, y = np.array(CENTERS[int(row["detector"][3:]) - 1]) / 40.88 * SIDE + DITHER * (int(row["exposure"]) - 1)
    angle = np.radians(ROLL)
    turned = np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    square = np.array([(0, 0), (-1, -1), (-1, 1), (1, 1), (1, -1)]) * SIDE / 2 + (x, y)
    center, *corners = from_tangent_plane(square @ turned.T, POINTING)
    corners = [(ra % 360, dec) for ra, dec in corners]
    region = "POLYGON ICRS " + " ".join(f"{value:.9f}" for corner in corners for value in corner)
    return row | {"ra_ref": center[0] % 360, "dec_ref": center[1], "roll_ref": ROLL + 60, "s_region": region}


def _known(row):
    """What the header of an exposure without products says."""
    names = ("stem", "detector", "optical_element", "ra_ref", "dec_ref", "roll_ref")
    return json.dumps({name: str(row[name]) if isinstance(row[name], str) else float(row[name]) for name in names})
