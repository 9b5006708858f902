"""Raw exposures of other models and older versions, brought to the newest one by `roman_datamodels`."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from pathlib import Path

from rampflow.errors import RampflowError

RAW_TAG = "wfi_science_raw-2.1.0"  #: the newest raw model, which is read without `roman_datamodels`
GROUND_TEST_MODELS = ("fps", "tvac")  #: exposures of ground tests: arrays with units, reference read added back already
ARRAYS = ("data", "amp33", "resultantdq")
REFERENCE_ARRAYS = ("reference_read", "reference_amp33")  #: not for ground tests, which have it added back
RAW_MODELS = ("wfi_science_raw", *GROUND_TEST_MODELS)


@contextlib.contextmanager
def updated_raw_file(raw):
    """A temporary file with the exposure as a raw exposure of the newest version.

    What the newest version asks for and the file doesn't have gets RAD's placeholders ("?", −999999). The statistics that
    ground-test files keep in ``meta`` go to ``extras``, because that name means something else now.

    Parameters
    ----------
    raw : `rampflow.step.exposure.Exposure`
        The exposure as it came.

    Yields
    ------
    pathlib.Path

    Raises
    ------
    RampflowError
        It is not a raw exposure, or `roman_datamodels` can't read it.
    """
    if raw.tag.rpartition("-")[0] not in RAW_MODELS:
        raise RampflowError(
            f"{raw.path}: holds the data model {raw.tag or 'of no name'!r}, not a raw exposure; "
            "dq_init takes wfi_science_raw, fps or tvac: give the _uncal file"
        )
    import asdf
    from roman_datamodels import datamodels

    try:
        with datamodels.open(raw.path) as old:
            meta = copy.deepcopy(_plain(old["meta"]))
            spell_data_problem(meta)
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
    """Say ``meta.exposure.data_problem`` as the newest version does, in place: older files have a boolean."""
    exposure = meta.get("exposure")
    if isinstance(exposure, dict) and isinstance(exposure.get("data_problem"), bool):
        exposure["data_problem"] = "True" if exposure["data_problem"] else None


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
