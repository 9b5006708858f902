"""Draw pictures of the products of an exposure, for the report."""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path

import numpy as np

from rampflow.chain import STATUSES, STEPS
from rampflow.detector import mean_reads
from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.atomic import replacing
from rampflow.pictures.alignment import measure_residuals, quiver_picture
from rampflow.pictures.figures import data_uri
from rampflow.pictures.image import corners_of
from rampflow.pictures.maps import chisq_map, flag_counts, flag_maps, jump_map, source_cutout
from rampflow.step.exposure import Exposure
from rampflow.step.logs import steps_in_log
from rampflow.step.program import reported_errors


def preview_picture(path: Path) -> dict:
    """Encode the preview in fewer bytes.

    Parameters
    ----------
    path : pathlib.Path
        The preview.

    Returns
    -------
    dict
        Title, caption and source of the picture.
    """
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(path) as preview:
        preview.save(buffer, "WEBP", quality=75)
    caption = "Count rate without the pixels not to be used; asinh stretch from below the sky to the 99.9th percentile."
    return {"title": "Calibrated image", "caption": caption, "source": data_uri(buffer.getvalue())}


def summarize_image(image: Exposure, shape: tuple[int, ...]) -> dict:
    """Collect what the report says of an exposure besides its numbers.

    Parameters
    ----------
    image : Exposure
        The calibrated image.
    shape : tuple of int
        Rows and columns.

    Returns
    -------
    dict
        Values as JSON can have them.
    """
    meta = image.meta
    logs = meta.get("cal_logs", [])
    return {
        "stem": image.path.name.removesuffix("_cal.asdf"),
        "resultants": len(meta["exposure"]["read_pattern"]),
        "shape": list(shape),
        "statuses": {name: meta["cal_step"].get(name, "INCOMPLETE") for name in STATUSES},
        "warnings": [line for line in logs if " :: WARNING :: " in line or " :: ERROR :: " in line],
        "ran": steps_in_log(logs),
        "software": f"{meta['calibration_software_name']} {meta['calibration_software_version']}",
        "context": meta.get("ref_file", {}).get("crds", {}).get("context"),
    }


def catalog_columns(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read columns of a source catalog.

    Where there are no positions of PSF fits, centroids take their place. In a catalog of forced sources, what was measured in
    its own image does.

    Parameters
    ----------
    path : pathlib.Path
        The catalog.
    names : tuple of str
        Names of the columns.

    Returns
    -------
    dict of numpy.ndarray
        The columns, by these names.

    Raises
    ------
    RampflowError
        The catalog has none of the columns that a name stands for.
    """
    from rampflow.catalog.columns import FORCED
    from rampflow.files.parquet import ParquetFile

    with ParquetFile(path) as file:
        present = file.schema_arrow.names
        chosen = {}
        for name in names:
            centroid = name.replace("_psf", "_centroid")
            candidates = (name, FORCED + name, FORCED + centroid, centroid)
            found = next((c for c in candidates if c in present), None)
            if found is None:
                raise RampflowError(
                    f"{path}: has none of the columns {', '.join(candidates)}; give a source catalog (_cat.parquet)"
                )
            chosen[name] = found
        table = file.read(sorted(set(chosen.values())))
    return {name: table[source].to_numpy() for name, source in chosen.items()}


def sky_positions(path: Path) -> np.ndarray:
    """Read the positions of the sources in a catalog.

    Parameters
    ----------
    path : pathlib.Path
        The catalog.

    Returns
    -------
    numpy.ndarray
        Right ascension and declination of each source, degrees, of shape (n, 2).
    """
    return np.column_stack(list(catalog_columns(path, ("ra_psf", "dec_psf")).values()))


def star_positions(path: Path, image: Exposure) -> np.ndarray:
    """Read the positions of the stars of an astrometric catalog, moved to the time of an exposure if their motions are known.

    Parameters
    ----------
    path : pathlib.Path
        The astrometric catalog.
    image : Exposure
        Image of the exposure.

    Returns
    -------
    numpy.ndarray
        Right ascension and declination of each star, degrees, of shape (n, 2).
    """
    from rampflow.alignment.epochs import MovingStars
    from rampflow.astrometry.region import angles, epoch_of, unit_vectors
    from rampflow.astrometry.star_table import read_star_table

    stars, origin = read_star_table(path)
    directions = unit_vectors(np.asarray(stars["ra"]), np.asarray(stars["dec"]))
    if origin.epoch is not None and np.isfinite(stars["pmra"]).any():
        directions = MovingStars(stars, origin.epoch).directions(epoch_of(image))
    return np.column_stack(angles(directions))


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="image_pictures.py", description=__doc__)
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="the pictures to write (.json)")
    parser.add_argument("--image", metavar="FILE", type=Path, required=True, help="the calibrated image (_cal.asdf)")
    parser.add_argument("--preview", metavar="FILE", type=Path, required=True, help="its preview (_cal.png)")
    parser.add_argument("--catalog", metavar="FILE", type=Path, help="its source catalog (_cat.parquet)")
    parser.add_argument("--segmentation", metavar="FILE", type=Path, help="its segmentation map (_segm.asdf)")
    parser.add_argument("--unaligned", metavar="FILE", type=Path, help="the catalog before the alignment")
    parser.add_argument("--stars", metavar="FILE", type=Path, help="the astrometric catalog")
    arguments = parser.parse_args(argv)
    with reported_errors("image_pictures", arguments.image) as outcome, AsdfFile(arguments.image) as file:
        image = Exposure(file)
        image.expect_model("wfi_image", "image_pictures")
        flags = image.array("dq", 2).read()
        counts = flag_counts(flags)
        facts = summarize_image(image, flags.shape)
        pictures = [preview_picture(arguments.preview), flag_maps(flags, counts)]
        if facts["statuses"][STEPS["ramp_fitting"].status] == "COMPLETE":
            times = mean_reads(image.get("meta.exposure.read_pattern", list)) * image.frame_time
            jumps = image.array("jump_indices", 2).read() if "jump_indices" in image.roman else None
            pictures.append(chisq_map(image.array("chisq", 2).read(), flags, len(times)))
            pictures.append(jump_map(flags, jumps, times))
        if arguments.catalog and arguments.segmentation:
            found = catalog_columns(arguments.catalog, ("x_psf", "y_psf", "is_extended"))
            with AsdfFile(arguments.segmentation) as segmentation:
                labels = Exposure(segmentation).array("data", 2).read()
            pictures.append(source_cutout(image.array("data", 2).read(), labels, *found.values()))
            if arguments.unaligned and arguments.stars and facts["statuses"]["tweakreg"] == "COMPLETE":
                residuals = measure_residuals(
                    found["x_psf"],
                    found["y_psf"],
                    sky_positions(arguments.unaligned),
                    sky_positions(arguments.catalog),
                    star_positions(arguments.stars, image),
                )
                corners = corners_of(image.meta.get("wcsinfo", {}).get("s_region"))
                if residuals and corners is not None:
                    pictures.append(quiver_picture(residuals, corners, flags.shape))
                    facts["residuals"] = {"before": residuals.before.tolist(), "after": residuals.after.tolist()}
        with replacing(arguments.output) as partial:
            partial.write_text(json.dumps({"facts": facts, "pictures": [shown for shown in pictures if shown]}))
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
