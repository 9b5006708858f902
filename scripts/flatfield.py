"""Step flatfield: divide the count-rate image and its errors by the flat field."""

import sys

import numpy as np

from rampflow import dq as dqflags
from rampflow.files.asdf_writer import EmptyArray
from rampflow.step.declaration import Parameter, Range, Reference, Step
from rampflow.step.job import Job
from rampflow.step.program import run_step

FLAT = Range(
    0.01,
    10,
    source="a flat is near 1 by definition; vignetting, dust and bad pixels lie between 0.1 and 1.5",
    median=(0.3, 3),
)

STEP = Step(
    name="flatfield",
    summary="Divide the count-rate image and its errors by the flat field.",
    references=(
        Reference(
            "flat",
            "flat field (data, err) and its data quality, without the reference border",
            skip_without=True,
            plausible={"data": FLAT},
            made_for=("detector", "optical_element"),
        ),
    ),
    parameters=(
        Parameter("include_var_flat", bool, False, "store the variance of the flat field, var_flat, and add it to the error"),
    ),
)

#: Planes of an image that scale with its signal, and the power of the flat field that divides them.
POWERS = {"data": 1, "dumo": 1, "err": 1, "var_poisson": 2, "var_rnoise": 2}


def usable_flat(flat: np.ndarray, dq: np.ndarray, *, plausible: Range = FLAT) -> tuple[np.ndarray, np.ndarray]:
    """Make a flat field that can divide every pixel.

    Parameters
    ----------
    flat : numpy.ndarray
        Flat field of the reference, float32 of shape (row, column).
    dq : numpy.ndarray
        Its flags, uint32 of the same shape; the flat is not used where NO_FLAT_FIELD is set.
    plausible : Range
        Limits of the flat field.

    Returns
    -------
    flat : numpy.ndarray
        Flat field, float32 of the same shape; 1 where it is not usable.
    dq : numpy.ndarray
        Flags, with NO_FLAT_FIELD where the flat field is not plausible, as NaN, zero and negative values are not.
    """
    dq = np.where(plausible.contains(flat), dq, dq | np.uint32(dqflags.NO_FLAT_FIELD))
    return np.where(dqflags.has(dq, dqflags.NO_FLAT_FIELD), np.float32(1), flat), dq


def flat_variance(image: np.ndarray, flat: np.ndarray, flat_err: np.ndarray) -> np.ndarray:
    """Compute the variance that the error of the flat field adds: (image / flat · flat_err)².

    Parameters
    ----------
    image : numpy.ndarray
        Count rate already divided by the flat field, DN/s, of shape (row, column).
    flat, flat_err : numpy.ndarray
        Flat field from `usable_flat`, and its error, of the same shape.

    Returns
    -------
    numpy.ndarray
        Variance, (DN/s)², float32.
    """
    return image**2 / flat**2 * flat_err**2


def run(job: Job) -> None:
    """Process one exposure.

    Parameters
    ----------
    job : Job
        The run of the step.
    """
    image = job.exposure
    data, dq = image.array("data", 2), image.array("dq", 2)
    with job.open_reference("flat") as reference:
        flat = reference.array("data", 2)
        flat_dq = reference.array("dq", shape=flat.shape)
        flat_err = reference.array("err", shape=flat.shape) if job.parameters.include_var_flat else None
        if flat.shape != data.shape:
            job.skip(f"The flat has the shape {flat.shape}, and the image {data.shape}")
            return
        stored = {name: image.array(name, 2) for name in POWERS if name in image.roman}
        var_flat = {} if flat_err is None else {"var_flat": EmptyArray(data.shape, np.float16)}
        with job.create(rewrite=("dq", *stored), arrays=var_flat) as product:

            def divide_rows(start, stop):
                reference_dq = flat_dq.read_rows(start, stop)
                values = flat.read_rows(start, stop)
                limits = job.plausible("flat", "data")
                divisor, flags = usable_flat(values, reference_dq, plausible=limits)
                planes = {"dq": dq.read_rows(start, stop) | flags}
                for name, array in stored.items():
                    planes[name] = array.read_rows(start, stop) / divisor ** POWERS[name]
                if flat_err is not None:
                    added = flat_variance(planes["data"], divisor, flat_err.read_rows(start, stop))
                    planes["var_flat"] = added
                    planes["err"] = np.sqrt(planes["err"].astype(stored["err"].dtype).astype(np.float32) ** 2 + added)
                for name, rows in planes.items():
                    product.write_rows(name, start, rows)
                return np.count_nonzero(flags != reference_dq), limits.count_unusual(values)

            job.map_rows_with_reference("flat", "data", divide_rows, data.plane_shape, "NO_FLAT_FIELD, not divided")


if __name__ == "__main__":
    sys.exit(run_step(STEP, run))
