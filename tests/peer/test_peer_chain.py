"""Compare all steps with those of romancal, on simulated exposures of rare kinds.

Each step gets the output of romancal's previous step, so that a difference belongs to one step. The detectors are
small: romancal's constant of 4096 columns is replaced by a smaller one.
"""

import dataclasses
import importlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import ramp_fitting
import refpix
from roman_datamodels import datamodels
from simulator import simulate_exposure, simulate_references, simulate_sky
from simulator.metadata import Settings
from small_files import arrays_of, meta_of, run_here, succeed

from rampflow import chain
from rampflow import dq as flags
from rampflow.detector import CHANNEL_WIDTH, SCIENCE, pixel_read_times
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import create_asdf
from rampflow.files.tags import ROMAN_PREFIX
from rampflow.files.yaml_tree import tagged

pytest.importorskip("romancal")

pytestmark = pytest.mark.peer

SIZE = 256
DETECTORS = ("WFI01", "WFI12")
CHANNELS = SIZE // CHANNEL_WIDTH
#: romancal's name of each step, and ours.
STEPS = {step.romancal_name: name for name, step in chain.STEPS.items() if step.rewrites and step.romancal_name}
#: Largest differences of each step's floating-point arrays; all else is the same to the last bit.
ROUNDING = {
    # Epsilon · log2 of 512 · 140 samples of a correction of up to 500 DN, and the spacing of 60,000 (2^-8).
    "refpix": {"atol": 0.001 + 2**-8},
    "dark_decay": {"atol": 5e-4},
    "linearity": {"atol": 0.012},  # counts near 60,000 in single precision
    "ramp_fitting": {"rtol": 1e-5, "atol": 1e-4},
    "flatfield": {"rtol": 1e-6},
}
HALF = {"rtol": 2e-3, "atol": 1e-6}  #: float16: two units in the last place


@dataclasses.dataclass
class Case:
    """Options of the simulation, and parameters of the steps other than the defaults."""

    settings: dict
    parameters: dict = dataclasses.field(default_factory=dict)


DOWNLINK = {"resultantdq": True, "reference_read": True, "reference_amp33": True, "data_encoding_offset": 300}
CASES = {
    "all that a raw file can bring": Case(
        DOWNLINK | {"ma_table": "uneven", "guide_window": (100, 50), "snowballs": 6, "cosmic_ray_flux": 20.0},
        {
            "dq_init": {"expand_gw_flagging": 5},
            "saturation": {"n_pix_grow_sat": 1, "backup": 1},
            "ramp_fitting": {"include_var_rnoise": True},
            "flatfield": {"include_var_flat": True},
        },
    ),
    "16 resultants": Case({"ma_table": "long", "detector": "WFI12", "snowballs": 3, "seed": 2}),
    "4 resultants": Case({"ma_table": "four", "exposure_type": "WFI_LOLO", "resultantdq": True, "seed": 3}),
    "spectral": Case({"exposure_type": "WFI_SPECTRAL", "optical_element": "GRISM", "seed": 5}),
    "dark": Case({"exposure_type": "WFI_IM_DARK", "optical_element": "DARK", "jumps": True, "gradient": (0.1, 1), "seed": 6}),
    "gradient": Case({"gradient": (1, 10000), "jumps": True, "ma_table": "imaging", "detector": "WFI12", "seed": 7}),
    "fps": Case({"exposure_type": "WFI_FLAT", "model": "fps", "data_encoding_offset": 100, "seed": 8}),
    "tvac": Case({"model": "tvac", "guide_window": (30, 40), "seed": 9}),
}


@pytest.fixture(scope="module")
def romancal(tmp_path_factory):
    """romancal for small detectors, with a cache of simulated references."""
    from romancal.dark_decay import dark_decay
    from romancal.pipeline import exposure_pipeline
    from romancal.refpix import _data

    cache = tmp_path_factory.mktemp("crds")
    simulate_references.make_cache(cache, DETECTORS, SIZE, 1)
    environment = {
        "CRDS_PATH": str(cache),
        "CRDS_SERVER_URL": "https://crds-serverless-mode.stsci.edu",
        "CRDS_OBSERVATORY": "roman",
        "CRDS_CONTEXT": "roman_0001.pmap",
        "STPIPE_DISABLE_CRDS_STEPPARS": "true",
    }
    constants = {"REF": 4, "PAD": 12, "CHAN_WIDTH": CHANNEL_WIDTH, "N_DETECT_CHAN": CHANNELS, "N_COLUMNS": SIZE}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(_data, "Const", SimpleNamespace(**constants))
        patch.setattr(dark_decay, "frame_read_times", read_times)
        # romancal fills the gaps of amplifier 33 from as many samples as the detector has channels.
        patch.setattr(refpix, "GAP_WIDTH", CHANNELS)
        yield exposure_pipeline.ExposurePipeline


def read_times(frame_time, sca, frame_number=0):
    return pixel_read_times((SIZE, SIZE), frame_time, sca) + frame_number * frame_time


def simulate(folder, case):
    """A raw exposure and its references, by type."""
    settings = Settings(**({"ma_table": "short"} | case.settings))
    files = simulate_exposure.find_references(settings)
    files["linearity"] = files["mask"].with_name(files["mask"].name.replace("_mask_", "_linearity_"))
    references = {reftype: datamodels.open(path) for reftype, path in files.items()}
    sky = simulate_sky.make_sky(settings.ra, settings.dec, 0.005, 30, 20, settings.seed, bright=8)
    arrays, _, _ = simulate_exposure.simulate(settings, sky, references)
    simulate_exposure.write_exposure(folder / "r_uncal.asdf", settings, arrays, references)
    return folder / "r_uncal.asdf", files


def our_step(name, before, after, files, parameters):
    step = importlib.import_module(name)
    references = [f"--{reference.type}={files.get(reference.type, 'N/A')}" for reference in step.STEP.references]
    run_here(step, before, after, *references, *(f"--{k}={str(v).lower()}" for k, v in parameters.items()))


def save(model, path):
    """Write a model of romancal, changed where its steps leave it invalid."""
    without_wcs = "dq" in model and "wcs" not in model.meta
    if without_wcs:
        model.meta["wcs"] = None
    for name in {"err", "var_flat"} & set(model):
        model[name] = np.asarray(model[name]).astype(np.float16)
    model.save(path)
    if without_wcs:
        del model.meta["wcs"]


def jump_map(indices, shape):
    """Jumps (resultant, y, x) as flags of a ramp without its border."""
    jumps = np.zeros(shape, np.uint8)
    jumps[tuple(indices.T)] = flags.JUMP_DET
    return jumps


def single_differences(groupdq, jumps):
    """Pixels in which jumps may leave a single difference: romancal's choice there depends on rounding."""
    used = ~flags.has(groupdq, flags.SATURATED | flags.DO_NOT_USE)
    usable = np.count_nonzero(used[1:] & used[:-1], axis=0)
    return (usable == 2) | ((usable == 3) & (np.count_nonzero(jumps, axis=0) > 1))


@pytest.mark.parametrize("name", CASES)
def test_every_step_writes_what_romancal_writes(tmp_path, romancal, name):
    case = CASES[name]
    before, files = simulate(tmp_path, case)
    model = datamodels.open(before)
    for theirs_name, step in STEPS.items():
        if model.meta.exposure.type not in chain.STEPS[step].exposure_types:
            break
        parameters = case.parameters.get(step, {})
        model = romancal.step_defs[theirs_name].call(model, **parameters)
        save(model, tmp_path / f"their_{step}.asdf")
        extra = {"saturated_in_median": True} if step == "ramp_fitting" else {}
        our_step(step, before, tmp_path / f"our_{step}.asdf", files, parameters | extra)
        compare(step, before, tmp_path / f"our_{step}.asdf", tmp_path / f"their_{step}.asdf", files)
        before = tmp_path / f"their_{step}.asdf"
    assert step == "flatfield"


def compare(step, before, our_path, their_path, files):
    ours, theirs = arrays_of(our_path), arrays_of(their_path)
    assert set(ours) == set(theirs)
    status = chain.STEPS[step].status
    if step == "assign_wcs" and abs(meta_of(before)["wcsinfo"]["ra_ref"]) > 360:  # a placeholder: romancal makes a WCS
        assert meta_of(our_path)["cal_step"][status] == "SKIPPED" and meta_of(our_path)["wcs"] is None
        return
    assert meta_of(our_path)["cal_step"][status] == meta_of(their_path)["cal_step"][status]
    if step == "dq_init" and "reference_read" in arrays_of(before):  # a raw 0 that decoding hides: AD_FLOOR in rampflow alone
        lost = arrays_of(before)["data"] == 0
        theirs["groupdq"][lost] |= np.uint8(flags.AD_FLOOR | flags.DO_NOT_USE)
        # Reference pixels are 0, which refpix takes for missing.
        lost[SCIENCE] = False
        theirs["data"][lost] = 0
        sides = {"top": np.s_[:, :4], "bottom": np.s_[:, -4:], "left": np.s_[..., :4], "right": np.s_[..., -4:]}
        for side, where in sides.items():
            theirs[f"border_ref_pix_{side}"] = theirs["data"][where].copy()
    if step == "ramp_fitting":
        theirs["dq"][without_read_noise(files)] |= np.uint32(flags.DO_NOT_USE)
    if step == "dark_current":  # a pixel whose dark is unknown: DO_NOT_USE in rampflow alone
        unknown = np.isnan(arrays_of(files["dark"])["dark_slope"][SCIENCE])
        assert unknown.sum() >= 3
        theirs["dq"][unknown] |= np.uint32(flags.DO_NOT_USE)
    same = compare_fits(ours, theirs, arrays_of(before)["groupdq"][SCIENCE], files) if step == "ramp_fitting" else None
    for key, our in ours.items():
        where = same if same is not None and our.shape == same.shape else np.s_[...]
        our, their = our[where], theirs[key][where]
        assert our.dtype == their.dtype, (step, key)
        if our.dtype == np.float16:
            np.testing.assert_allclose(our.astype(float), their.astype(float), **HALF, err_msg=f"{step}: {key}")
        elif our.dtype.kind == "f" and step in ROUNDING:
            np.testing.assert_allclose(our, their, **ROUNDING[step], err_msg=f"{step}: {key}")
        else:
            np.testing.assert_array_equal(our, their, err_msg=f"{step}: {key}")


def without_read_noise(files):
    """Pixels with an impossible read noise: DO_NOT_USE in rampflow, no flag in romancal."""
    return ~ramp_fitting.READNOISE.contains(arrays_of(files["readnoise"])["data"][SCIENCE])


def compare_fits(ours, theirs, groupdq, files):
    """Compare the jumps of two fitted images, and return the pixels whose fits must be equal.

    The others are documented in docs/differences.md: without a slope, or left with a single difference.
    """
    our_jumps, their_jumps = (jump_map(fit.pop("jump_indices"), groupdq.shape) for fit in (ours, theirs))
    single = single_differences(groupdq, our_jumps)
    gain = arrays_of(files["gain"])["data"][SCIENCE]
    lost = ~np.isfinite(ours["data"])
    assert flags.has(ours["dq"][lost], flags.DO_NOT_USE).all()
    assert np.isnan(theirs["data"][lost & (gain > 0)]).all()  # where the gain is negative, romancal goes on
    np.testing.assert_array_equal(ours["dq"][lost], theirs["dq"][lost] | ours["dq"][lost])
    assert lost.mean() < 0.1 and single.mean() < 0.1
    same = ~(lost | single)
    np.testing.assert_array_equal(our_jumps[:, same], their_jumps[:, same])
    return same


@pytest.mark.parametrize("version", ["1.0.0", "1.4.0", "1.8.0", "2.0.0"])
def test_older_raw_exposures_give_the_ramp_of_romancal(tmp_path, romancal, version):
    shape, rng = (3, SIZE, SIZE), np.random.default_rng(10)
    old = datamodels.ScienceRawModel.create_fake_data(shape=shape, tag=f"{ROMAN_PREFIX}wfi_science_raw-{version}")
    old.meta.exposure.read_pattern, old.meta.exposure.frame_time = [[1], [2, 3], [4]], 3.1
    for name, value in {"xstart": 100, "xstop": 116, "ystart": 50, "ystop": 66}.items():
        old.meta.guide_star[f"window_{name}"] = value
    old.data = rng.integers(0, 65536, shape).astype(np.uint16)
    old.amp33 = rng.integers(0, 65536, (*shape[:2], CHANNEL_WIDTH)).astype(np.uint16)
    old.save(tmp_path / "in_uncal.asdf")
    mask = simulate_exposure.find_references(Settings())["mask"]
    theirs = romancal.step_defs["dq_init"].call(str(tmp_path / "in_uncal.asdf"), override_mask=str(mask), expand_gw_flagging=2)
    our_step("dq_init", tmp_path / "in_uncal.asdf", tmp_path / "out.asdf", {"mask": mask}, {"expand_gw_flagging": 2})
    for name, our in arrays_of(tmp_path / "out.asdf").items():
        np.testing.assert_array_equal(our, np.asarray(theirs[name]), err_msg=name)
        assert our.dtype == theirs[name].dtype
    with datamodels.open(tmp_path / "out.asdf") as ours:
        assert flags.has(np.asarray(ours.pixeldq)[48:68, 98:118], flags.DO_NOT_USE).all()


def test_the_mosaic_pipeline_takes_products_of_newer_raw_files(tmp_path, romancal):
    from romancal.pipeline import MosaicPipeline

    raw, files = simulate(tmp_path, Case({}))
    with AsdfFile(raw) as file:  # as RAD 1.2 writes it
        roman = tagged(file.tree["roman"], f"{ROMAN_PREFIX}wfi_science_raw-2.2.0")
        roman["meta"]["visit"]["wfi_acm_z_defocus_size"], roman["meta"]["ref_file"]["bam"] = 0.0, "N/A"
        with create_asdf(tmp_path / "in_uncal.asdf", {**file.tree, "roman": roman}, file.standard):
            pass
    before = tmp_path / "in_uncal.asdf"
    for step in chain.image_chain(chain.chain_of("WFI_IMAGE", "WFI01")):
        our_step(step, before, tmp_path / f"{step}.asdf", files, {})
        before = tmp_path / f"{step}.asdf"
    succeed("finalize", before, tmp_path / "a_cal.asdf", tmp_path / "a_wcs.asdf")
    members = [{"expname": str(tmp_path / "a_cal.asdf"), "exptype": "science"}]
    association = {"asn_id": "a1", "asn_pool": "none", "products": [{"name": "mosaic", "members": members}]}
    (tmp_path / "asn.json").write_text(json.dumps(association))
    steps = {"source_catalog": {"skip": True}}
    mosaic, *_ = MosaicPipeline.call(str(tmp_path / "asn.json"), steps=steps, resample_on_skycell=False)
    assert mosaic.meta.cal_step.resample == mosaic.meta.cal_step.flux == "COMPLETE"
    conversion = meta_of(tmp_path / "a_cal.asdf")["photometry"]["conversion_megajanskys"]
    expected = np.nanmedian(arrays_of(tmp_path / "a_cal.asdf")["data"]) * conversion
    assert np.isfinite(mosaic.data).mean() > 0.9
    assert np.nanmedian(mosaic.data) == pytest.approx(expected, rel=0.05)


def linear_ramp(before, romancal):
    """The ramp that romancal fits: after its steps up to linearity."""
    model = datamodels.open(before)
    for theirs_name, step in STEPS.items():
        if step == "ramp_fitting":
            return model
        model = romancal.step_defs[theirs_name].call(model)


def test_snowballs_are_those_of_romancal(tmp_path, romancal):
    before, files = simulate(tmp_path, Case({"snowballs": 8, "seed": 4}))
    model = linear_ramp(before, romancal)
    save(model, tmp_path / "ramp.asdf")
    save(romancal.step_defs["rampfit"].call(model, expand_large_events=True), tmp_path / "theirs.asdf")
    options = {"saturated_in_median": True, "mirrored_events": True}
    our_step("ramp_fitting", tmp_path / "ramp.asdf", tmp_path / "alone.asdf", files, options)
    our_step("ramp_fitting", tmp_path / "ramp.asdf", tmp_path / "ours.asdf", files, options | {"expand_large_events": True})
    groupdq = arrays_of(tmp_path / "ramp.asdf")["groupdq"][SCIENCE]
    alone, ours, theirs = (arrays_of(tmp_path / f"{name}.asdf") for name in ("alone", "ours", "theirs"))
    alone_jumps, our_jumps, their_jumps = (jump_map(fit["jump_indices"], groupdq.shape) for fit in (alone, ours, theirs))
    assert (our_jumps != alone_jumps).any(axis=0).mean() > 0.02
    expanded, number = ramp_fitting.expand_large_events(groupdq | alone_jumps, mirrored_events=True)
    extended = flags.has(expanded & ~groupdq, flags.SATURATED).any(axis=0)
    assert number >= 4 and extended.sum() > 100
    same = np.isfinite(ours["data"]) & ~single_differences(groupdq, alone_jumps | our_jumps)
    assert (extended & same).sum() > 100
    # A pixel exactly on the edge of an ellipse falls to one side or the other with the last bit of its angle.
    edge = (our_jumps != their_jumps).any(axis=0)
    assert (edge & same).mean() < 1e-3
    same &= ~edge
    assert same.mean() > 0.9
    np.testing.assert_allclose(ours["data"][same], theirs["data"][same], **ROUNDING["ramp_fitting"])
    theirs["dq"][without_read_noise(files)] |= np.uint32(flags.DO_NOT_USE)
    np.testing.assert_array_equal(ours["dq"][same], theirs["dq"][same])


def test_three_resultants_are_fitted_here_alone(tmp_path, romancal):
    before, files = simulate(tmp_path, Case({"ma_table": "three"}))
    model = linear_ramp(before, romancal)
    save(model, tmp_path / "ramp.asdf")
    with pytest.raises(ValueError, match="at least 4"):
        romancal.step_defs["rampfit"].call(model)
    our_step("ramp_fitting", tmp_path / "ramp.asdf", tmp_path / "ours.asdf", files, {})
    ours = arrays_of(tmp_path / "ours.asdf")
    good = (ours["dq"] & flags.DO_NOT_USE) == 0
    assert good.mean() > 0.9 and np.isfinite(ours["data"][good]).all()
    assert ((ours["dq"] & flags.UNRELIABLE_SLOPE) != 0).all()


def test_a_fully_saturated_exposure_is_set_to_zero_by_both(tmp_path, romancal):
    case = Case({"saturated": True, "guide_window": (100, 50)})
    before, files = simulate(tmp_path, case)
    pipeline = romancal()
    theirs, with_catalog = pipeline._process_model(datamodels.open(before))
    assert not with_catalog
    for step in ("dq_init", "saturation"):
        our_step(step, before, tmp_path / f"{step}.asdf", files, {})
        before = tmp_path / f"{step}.asdf"
    references = [f"--{reftype}={files[reftype]}" for reftype in ("gain", "readnoise")]
    succeed("ramp_fitting", before, before := tmp_path / "image.asdf", *references)
    ours = arrays_of(before)
    statuses = meta_of(before)["cal_step"]
    for key in ("data", "err", "var_poisson", "dq", "dumo", "chisq", "amp33", "border_ref_pix_left", "dq_border_ref_pix_top"):
        np.testing.assert_array_equal(ours[key], np.asarray(theirs[key]), err_msg=key)
    assert not ours["data"].any() and flags.has(ours["dq"], flags.SATURATED).all()
    expected = {name: str(status) for name, status in theirs.meta.cal_step.items()}
    assert {name: statuses[name] for name in expected if name != "tweakreg"} == {
        name: status for name, status in expected.items() if name != "tweakreg"
    }
