"""simulate_with_romanisim: make a raw exposure of a simulated sky with STScI's simulator, from our references.

It runs in romancal's environment, with romanisim, and takes those options of simulate_exposure.py that romanisim has an answer
to::

    python simulate_with_romanisim.py EXPOSURE_uncal.asdf --sky SKY.ecsv --cache CACHE --detector WFI07 --seed 1
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scripts"))

from simulator.metadata import MA_TABLES, Settings
from simulator.optics import attitude, great_circle_rotation, pointing_at

#: romanisim multiplies and divides by references as they are: what stands in for values that are NaN or not positive.
USUAL = {"flat": 1.0, "gain": 1.8, "saturation": 55000.0, "readnoise": 7.0, "dark": 0.01}


def mend_references(gather):
    """`gather` of romanisim, with usual values in place of faulty ones."""

    def gather_mended(*args, **options):
        found = gather(*args, **options)
        for reftype, usual in USUAL.items():
            values = getattr(found[reftype], "value", found[reftype])
            if isinstance(values, np.ndarray):
                found[reftype] = np.where(values > 0, values, values.dtype.type(usual))
        return found

    return gather_mended


def name_detectors(getreferences):
    """`getreferences` of crds, for romanisim's PSF too: it asks for detector SCA07, which CRDS knows as WFI07."""

    def get(header, **options):
        return getreferences({key: re.sub(r"^SCA(\d\d)$", r"WFI\1", str(value)) for key, value in header.items()}, **options)

    return get


def make_catalog(sky, optical_element: str):
    """The sky as romanisim wants it: fluxes in maggies, point sources and exponential disks."""
    from astropy.table import Table

    galaxy = sky["type"] == "galaxy"
    return Table(
        {
            "ra": sky["ra"],
            "dec": sky["dec"],
            "type": np.where(galaxy, "SER", "PSF"),
            "n": np.where(galaxy, 1.0, -1.0),
            "half_light_radius": np.where(galaxy, sky["half_light_radius"], -1.0),
            "pa": sky["position_angle"],
            "ba": sky["axis_ratio"],
            optical_element: 10 ** (-0.4 * sky["mag"]),
        }
    )


def make_metadata(args) -> dict:
    """Header of the exposure, as far as romanisim asks for it: it looks where our simulator would."""
    import crds
    import roman_datamodels.datamodels as rdm
    from astropy.coordinates import SkyCoord
    from romanisim import ris_make_utils
    from romanisim.models import parameters, wcs

    number, reads = MA_TABLES[args.ma_table]
    ends = [resultant[-1] * parameters.read_time for resultant in reads]
    entry = {"frame_time": parameters.read_time, "science_read_pattern": reads}
    entry |= {"accumulated_exposure_time": ends, "effective_exposure_time": ends}
    parameters.ma_table_reference = {"roman": {"science_tables": {f"SCI{number:04d}": entry}}}
    parameters.read_pattern[number] = reads
    # None: from CRDS. There is no reference for the coupling of neighboring pixels.
    parameters.reference_data = dict.fromkeys(parameters.reference_data) | {"ipc": "none"}

    sca = int(args.detector[3:])
    header = ris_make_utils.set_metadata(
        date=args.start_time, bandpass=args.optical_element, sca=sca, ma_table_number=number, scale_factor=1.0
    )
    header["exposure"]["type"] = args.exposure_type
    offset = np.divide(args.dither, 3600) / [np.cos(np.radians(args.dec)), 1]
    aim = SkyCoord(args.ra + offset[0], args.dec + offset[1], unit="deg")
    wcs.fill_in_parameters(header, aim, boresight=False)
    keys = {"INSTRUMENT.NAME": "WFI", "INSTRUMENT.DETECTOR": args.detector, "INSTRUMENT.OPTICAL_ELEMENT": args.optical_element}
    keys |= {"EXPOSURE.TYPE": args.exposure_type, "EXPOSURE.START_TIME": args.start_time.replace("T", " ")}
    keys = {f"ROMAN.META.{name}": value for name, value in keys.items()}
    file = crds.getreferences(keys, reftypes=["distortion"], observatory="roman")["distortion"]
    with rdm.open(file) as distortion:
        center = (parameters.n_pix - 1) / 2
        v2_ref, v3_ref = distortion.coordinate_distortion_transform(center, center)
    header["wcsinfo"] |= {"v2_ref": float(v2_ref), "v3_ref": float(v3_ref), "roll_ref": args.roll}
    return header


def name_exposure(meta, output: Path, args) -> None:
    """Fill in what romanisim leaves open."""
    from romanisim import ris_make_utils

    meta["filename"] = output.name
    meta["observation"].update(ris_make_utils.parse_filename(output.name))
    meta["observation"].update({"visit_file_group": 1, "visit_file_sequence": 1, "visit_file_activity": "01"})
    wcsinfo = meta["wcsinfo"]
    true = attitude(*(wcsinfo[name] for name in ("v2_ref", "v3_ref", "ra_ref", "dec_ref", "roll_ref")))
    seen = great_circle_rotation(wcsinfo["ra_ref"], wcsinfo["dec_ref"], args.pointing_error) @ true
    pointing = pointing_at(seen, wcsinfo["v2_ref"], wcsinfo["v3_ref"])
    wcsinfo.update(zip(("ra_ref", "dec_ref", "roll_ref"), pointing, strict=True))
    if args.guide_window:
        x, y = args.guide_window
        meta["guide_star"].update({"window_xstart": x, "window_ystart": y, "window_xstop": x + 16, "window_ystop": y + 16})


def main() -> int:
    """Run from the command line."""
    default = Settings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("output", type=Path, help="exposure to write (…_uncal.asdf)")
    add("--sky", type=Path, required=True, help="catalog of simulate_sky")
    add("--cache", type=Path, required=True, help="CRDS cache with no server")
    for name in ("detector", "exposure-type", "optical-element", "start-time", "ma-table"):
        add(f"--{name}", default=getattr(default, name.replace("-", "_")), help="(default: %(default)s)")
    for name in ("ra", "dec", "roll"):
        add(f"--{name}", type=float, default=getattr(default, name), help="degrees (default: %(default)s)")
    add("--dither", type=float, nargs=2, default=default.dither, help="east and north, arcsec (default: %(default)s)")
    add("--pointing-error", type=float, nargs=2, default=default.pointing_error, help="east and north, arcsec")
    add("--guide-window", type=int, nargs=2, help="its first column and row (default: on another detector)")
    add("--exposure", type=int, default=1, help="number; the file's name says it")
    add("--seed", type=int, default=1, help="equal seeds make equal exposures (default: %(default)s)")
    add("--threads", type=int, default=1, help="not used")
    args = parser.parse_args()
    os.environ |= {"CRDS_PATH": str(args.cache.resolve()), "CRDS_SERVER_URL": "https://crds-serverless-mode.stsci.edu"}
    os.environ |= {"CRDS_OBSERVATORY": "roman"}

    import asdf
    import crds
    import galsim
    from astropy.table import Table
    from romanisim import image, persistence

    crds.getreferences = name_detectors(crds.getreferences)
    header = make_metadata(args)
    image.gather_reference_data = mend_references(image.gather_reference_data)
    catalog = make_catalog(Table.read(args.sky), args.optical_element)
    model, _ = image.simulate(
        header,
        catalog,
        usecrds=True,
        psftype="epsf",
        level=1,
        persistence=persistence.Persistence(),
        rng=galsim.UniformDeviate(args.seed),
    )
    name_exposure(model["meta"], args.output, args)
    asdf.AsdfFile({"roman": model}).write_to(args.output, all_array_compression="lz4")
    return 0


if __name__ == "__main__":
    sys.exit(main())
