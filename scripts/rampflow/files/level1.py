"""Conversion of raw exposures of other models and older versions to the newest one, with `roman_datamodels`."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from pathlib import Path

from rampflow.errors import RampflowError
from rampflow.files.tags import RAW, ROMAN_PREFIX

RAW_TAG = RAW.removeprefix(ROMAN_PREFIX)  #: the newest raw model, which is read without `roman_datamodels`
GROUND_TEST_MODELS = ("fps", "tvac")  #: exposures of ground tests: arrays with units, reference read added back already
ARRAYS = ("data", "amp33", "resultantdq")
REFERENCE_ARRAYS = ("reference_read", "reference_amp33")  #: not for ground tests, which have it added back
RAW_MODELS = ("wfi_science_raw", *GROUND_TEST_MODELS)
#: Entries of ``meta`` that the newest version has under another name, with the name in older versions or ground tests.
RENAMED = {
    "exposure.engineering_quality": "visit.engineering_quality",
    "exposure.nresultants": "exposure.ngroups",
    "guide_star.guide_mode": "guidestar.gw_fgs_mode",
    "guide_star.guide_window_id": "guidestar.gw_id",
    "guide_star.window_xstart": "guidestar.gw_window_xstart",
    "guide_star.window_xstop": "guidestar.gw_window_xstop",
    "guide_star.window_ystart": "guidestar.gw_window_ystart",
    "guide_star.window_ystop": "guidestar.gw_window_ystop",
    "pointing.pa_aperture": "wcsinfo.pa_aperture",
    "pointing.pointing_engineering_source": "visit.pointing_engineering_source",
    "prd_version": "prd_software_version",
    "ref_file.inverselinearity": "ref_file.inverse_linearity",
}


@contextlib.contextmanager
def updated_raw_file(raw):
    """Write a temporary file with an exposure in the newest version of the raw data model.

    What the newest version asks for is taken from where the older one has it (`RENAMED`, `derive_entries`); what the file
    doesn't have gets RAD's placeholders ("?", −999999). The statistics that ground-test files keep in ``meta`` go to
    ``extras``, because that name means something else now.

    Parameters
    ----------
    raw : `rampflow.step.exposure.Exposure`
        The exposure as it came.

    Yields
    ------
    pathlib.Path
        The file.

    Raises
    ------
    RampflowError
        It is not a raw exposure, or `roman_datamodels` can't read it.
    """
    if raw.tag.rpartition("-")[0] not in RAW_MODELS:
        raise RampflowError(
            f"{raw.path}: expected the data model 'wfi_science_raw', 'fps' or 'tvac', found {raw.tag or 'none'!r}; "
            "give dq_init a raw exposure (_uncal.asdf)"
        )
    import asdf
    from roman_datamodels import datamodels

    try:
        with datamodels.open(raw.path) as old:
            meta = copy.deepcopy(_plain(old["meta"]))
            spell_data_problem(meta)
            rename_entries(meta)
            derive_entries(meta)
            # Arrays of ground tests are quantities.
            names = ARRAYS if raw.tag.rpartition("-")[0] in GROUND_TEST_MODELS else ARRAYS + REFERENCE_ARRAYS
            arrays = {k: getattr(old[k], "value", old[k]) for k in names if k in old}
            counts = {name: arrays.pop(name) for name in ("data", "amp33")}
            extras = {"extras": {"ground_test": {"statistics": meta.pop("statistics")}}} if "statistics" in meta else {}
            new = datamodels.ScienceRawModel.create_fake_data({"meta": meta, **counts, **arrays})
            new["meta"]["exposure"]["read_pattern"] = meta["exposure"]["read_pattern"]
            for name, value in {**arrays, **extras}.items():
                new[name] = value
            with tempfile.TemporaryDirectory(prefix="rampflow-") as folder:
                path = Path(folder) / raw.path.name
                new.to_asdf(path, all_array_compression=None)
                yield path
    except RampflowError:
        raise
    except (asdf.ValidationError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = " ".join(str(error).split())[:300]
        raise RampflowError(f"{raw.path}: {raw.tag} can't be brought to {RAW_TAG}: {message}") from error


def spell_data_problem(meta: dict) -> None:
    """Bring ``meta.exposure.data_problem`` to the form of the newest version, in place: older files have a boolean.

    Parameters
    ----------
    meta : dict
        Metadata of a raw exposure.
    """
    exposure = meta.get("exposure")
    if isinstance(exposure, dict) and isinstance(exposure.get("data_problem"), bool):
        exposure["data_problem"] = "True" if exposure["data_problem"] else None


def rename_entries(meta: dict) -> None:
    """Copy entries that the newest version has under another name to that name, in place.

    Parameters
    ----------
    meta : dict
        Metadata of a raw exposure.
    """
    for new, old in RENAMED.items():
        *section, name = new.split(".")
        value = _entry(meta, old)
        if value is not None and _entry(meta, new) is None:
            place = meta
            for part in section:
                place = place.setdefault(part, {})
            place[name] = value


def derive_entries(meta: dict) -> None:
    """Set entries that follow from others of an older version, in place.

    The WFI observes in parallel with the Coronagraph in the files of a visit after the first (``visit_file_sequence`` > 1);
    romancal has the same rule. Exposures of ground tests have a start and a duration, but no end.

    Parameters
    ----------
    meta : dict
        Metadata of a raw exposure.
    """
    sequence = _entry(meta, "observation.visit_file_sequence")
    if _entry(meta, "observation.wfi_parallel") is None and isinstance(sequence, int):
        meta["observation"]["wfi_parallel"] = sequence > 1
    start, duration = _entry(meta, "exposure.start_time"), _entry(meta, "exposure.exposure_time")
    if start is not None and _entry(meta, "exposure.end_time") is None and isinstance(duration, int | float) and duration > 0:
        from astropy.time import TimeDelta

        meta["exposure"]["end_time"] = start + TimeDelta(duration, format="sec")


def _entry(meta: dict, name: str):
    """The value of a dotted name, `None` where there is none."""
    node = meta
    for part in name.split("."):
        if not isinstance(node, dict) or part not in node:
            return None
        node = node[part]
    return node


def _plain(node):
    """A tree without the classes of older versions: mappings as dict, sequences as list, tagged texts as str."""
    from astropy.time import Time

    if isinstance(node, Time):
        return Time(node)
    if isinstance(node, str):
        return str(node)
    if hasattr(node, "items"):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple) or type(node).__name__ == "LNode":
        return [_plain(value) for value in node]
    return node
