"""Evaluate world coordinate systems from the trees of a file, without gwcs.

`Wcs` gives the positions that gwcs.wcs.WCS (gwcs 1.0) gives of the same tree, to 1e-12 degrees. It takes the transforms in
`KINDS`; of a tree with a transform of another kind it makes the object of gwcs and calls that. It saves the import of
asdf, gwcs and astropy.modeling, 0.9 s of CPU time a job, in photom and finalize, which read a WCS and build none:
`rampflow.wcs.building` builds them. The transforms and their parts are those of the ASDF transform schemas
(https://asdf-transform-schemas.readthedocs.io) and of gwcs's schemas (https://asdf-wcs-schemas.readthedocs.io).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from rampflow.files import tags
from rampflow.files.stored_array import StoredArray
from rampflow.files.yaml_tree import TaggedDict, tagged
from rampflow.wcs.conversion import wcs_of_tree


class UnknownTransform(ValueError):
    """A transform that this module doesn't compute."""


def box_of(node: dict) -> tuple | None:
    """Bounding box of a transform.

    Parameters
    ----------
    node : dict
        Tree of the transform.

    Returns
    -------
    tuple or None
        First and last value of each input, in the order of the inputs; `None` without a bounding box.

    Raises
    ------
    UnknownTransform
        Its ends have units.
    """
    box = node.get("bounding_box")
    if box is None:
        return None
    if isinstance(box, dict):  # its `order` is that in which it was given, not that in which it is written
        intervals = [box["intervals"][name] for name in node["inputs"]]
    else:  # the oldest version of the schema: a list, y first
        intervals = box[::-1]
    if not all(isinstance(end, int | float) for interval in intervals for end in interval):
        raise UnknownTransform("a bounding box with units")
    return tuple(tuple(interval) for interval in intervals)


def transform_kind(node: object) -> str:
    """Kind of a transform.

    Parameters
    ----------
    node : object
        Tree of the transform, or another node with a tag.

    Returns
    -------
    str
        Name in its tag, without the version.
    """
    return getattr(node, "tag", "").rpartition("/")[2].rpartition("-")[0]


def frame_fault(tree: Any) -> str:
    """Tell what is wrong with the frame of the sky in which a WCS ends.

    Parameters
    ----------
    tree : object
        Tree of the WCS.

    Returns
    -------
    str
        What is wrong; empty if the positions are ICRS, ra and dec in degrees, or if the WCS doesn't say what they are.
    """
    steps = tree.get("steps") if isinstance(tree, dict) else None
    frame = steps[-1].get("frame") if isinstance(steps, list) and steps and isinstance(steps[-1], dict) else None
    if not isinstance(frame, dict):
        return ""  # its name alone
    faults = []
    system = transform_kind(frame.get("reference_frame"))
    if system not in ("", "icrs"):
        faults.append(f"is {system}")
    if any(str(unit) != "deg" for unit in frame.get("unit") or ()):
        faults.append(f"has the units {', '.join(map(str, frame['unit']))}")
    if list(frame.get("axes_order") or (0, 1)) != [0, 1]:
        faults.append("has dec before ra (axes_order)")
    if not faults:
        return ""
    return (
        f"the frame {frame.get('name')} of its WCS (meta.wcs) {' and '.join(faults)}; it must be ICRS, with ra and dec in deg: "
        "convert the WCS"
    )


def evaluate(node: dict, *values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Transform coordinates.

    Parameters
    ----------
    node : dict
        Tree of a transform.
    *values : numpy.ndarray
        Its inputs, of one shape.

    Returns
    -------
    tuple of numpy.ndarray
        Its outputs.

    Raises
    ------
    UnknownTransform
        It is, or contains, a transform that this module doesn't compute.
    """
    kind = transform_kind(node)
    if kind not in _FORWARD:
        raise UnknownTransform(f"a transform of the kind {kind!r}")
    return _FORWARD[kind](node, *values)


def inverse(node: dict) -> dict:
    """Inverse of a transform.

    Parameters
    ----------
    node : dict
        Tree of the transform.

    Returns
    -------
    dict
        Tree of the inverse that the transform names, or else of the one that follows from its kind.

    Raises
    ------
    UnknownTransform
        It has no inverse, or one that this module doesn't compute.
    """
    if "inverse" in node:
        return node["inverse"]
    kind = transform_kind(node)
    if kind not in _INVERSE:
        raise UnknownTransform(f"the inverse of a transform of the kind {kind!r}")
    result = _INVERSE[kind](node)
    result.update(inputs=node["outputs"], outputs=node["inputs"])
    return result


def _number(node, name):
    if not isinstance(node[name], int | float):
        raise UnknownTransform(f"{name} with a unit")
    return node[name]


def _array(node, name):
    values = node[name]
    if isinstance(values, StoredArray):
        return values.read()
    if isinstance(values, dict):
        raise UnknownTransform(f"{name} with a unit")
    return np.asarray(values, float)


def _compose(node, *values):
    for part in node["forward"]:
        values = evaluate(part, *values)
    return values


def _concatenate(node, *values):
    results = []
    for part in node["forward"]:
        if "inputs" not in part:
            raise UnknownTransform("a transform without the names of its inputs")
        count = len(part["inputs"])
        results += evaluate(part, *values[:count])
        values = values[count:]
    return tuple(results)


def _arithmetic(function):
    def compute(node, *values):
        first, second = (evaluate(part, *values) for part in node["forward"])
        return tuple(function(a, b) for a, b in zip(first, second, strict=True))

    return compute


def _polynomial(node, *values):
    coefficients = _array(node, "coefficients")
    for name in ("domain", "window"):
        if (np.reshape(node.get(name) or (), (-1, 2)) != (-1, 1)).any():
            raise UnknownTransform(f"a polynomial with a {name}")
    polynomial = np.polynomial.polynomial
    evaluators = {1: polynomial.polyval, 2: polynomial.polyval2d}
    if coefficients.ndim not in evaluators:
        raise UnknownTransform(f"a polynomial of {coefficients.ndim} variables")
    return (evaluators[coefficients.ndim](*values, coefficients),)


def _affine(node, x, y):
    matrix, shift = _array(node, "matrix"), _array(node, "translation")
    return tuple(row[0] * x + row[1] * y + offset for row, offset in zip(matrix, shift, strict=True))


def _rotate(node, *values):
    """Rotate the axes about one of them after the other; the angles are in degrees."""
    if node["rotation_type"] != "cartesian":
        raise UnknownTransform("a rotation of spherical coordinates")
    for angle, axis in zip(node["angles"], node["axes_order"], strict=True):
        cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        about = "xyz".index(axis)
        values, (i, j) = list(values), ((about + 1) % 3, (about + 2) % 3)
        values[i], values[j] = cosine * values[i] + sine * values[j], cosine * values[j] - sine * values[i]
    return tuple(values)


def _spherical(node, *values):
    wrap = _number(node, "wrap_lon_at")
    if node["transform_type"] == "spherical_to_cartesian":
        lon, lat = np.radians(values)
        return np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)
    x, y, z = values
    lon, lat = np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y)))
    return (np.mod(lon, 360) if wrap == 360 else lon), lat


_FORWARD = {
    "compose": _compose,
    "concatenate": _concatenate,
    "add": _arithmetic(np.add),
    "subtract": _arithmetic(np.subtract),
    "multiply": _arithmetic(np.multiply),
    "divide": _arithmetic(np.divide),
    "identity": lambda node, *values: values,
    "remap_axes": lambda node, *values: tuple(values[i] for i in node["mapping"]),
    "constant": lambda node, *values: (np.full(np.shape(values[0]), float(_number(node, "value"))),),
    "shift": lambda node, value: (value + _number(node, "offset"),),
    "scale": lambda node, value: (value * _number(node, "factor"),),
    "affine": _affine,
    "polynomial": _polynomial,
    "rotate_sequence_3d": _rotate,
    "spherical_cartesian": _spherical,
}

#: Kinds of transforms that are computed here.
KINDS = tuple(_FORWARD)


def _inverse_affine(node):
    matrix = np.linalg.inv(_array(node, "matrix"))
    return tagged({"matrix": matrix, "translation": -matrix @ _array(node, "translation")}, node.tag)


def _inverse_remap(node):
    mapping = node["mapping"]
    if sorted(mapping) != list(range(len(node["inputs"]))):
        raise UnknownTransform("the inverse of a mapping that is no permutation")
    return tagged({"mapping": [mapping.index(i) for i in range(len(mapping))]}, node.tag)


def _inverse_spherical(node):
    first, _, second = node["transform_type"].partition("_to_")
    return tagged({**node, "transform_type": f"{second}_to_{first}"}, node.tag)


_INVERSE = {
    "compose": lambda node: tagged({"forward": [inverse(part) for part in reversed(node["forward"])]}, node.tag),
    "concatenate": lambda node: tagged({"forward": [inverse(part) for part in node["forward"]]}, node.tag),
    "identity": lambda node: tagged(dict(node), node.tag),
    "remap_axes": _inverse_remap,
    "shift": lambda node: tagged({"offset": -_number(node, "offset")}, node.tag),
    "scale": lambda node: tagged({"factor": 1 / _number(node, "factor")}, node.tag),
    "affine": _inverse_affine,
    "rotate_sequence_3d": lambda node: tagged(
        {**node, "angles": [-angle for angle in reversed(node["angles"])], "axes_order": node["axes_order"][::-1]}, node.tag
    ),
    "spherical_cartesian": _inverse_spherical,
}


def with_border(tree: TaggedDict, width: int) -> TaggedDict:
    """WCS of the same image with a border of some pixels around it.

    It is made from the tree, and not with gwcs, because that saves finalize 0.9 s of CPU time per exposure.

    Parameters
    ----------
    tree : TaggedDict
        Tree of the WCS.
    width : int
        Width of the border, pixels.

    Returns
    -------
    TaggedDict
        Tree of the new WCS. Its pixels are counted from the corner of the border; its bounding box includes the border.
    """
    first, *others = tree["steps"]
    node = first["transform"]
    inputs = ["x0", "x1"]
    shifts = [tagged({"offset": float(-width), "inputs": ["x"], "outputs": ["y"]}, tags.SHIFT) for _ in inputs]
    inner = tagged({"forward": shifts, "inputs": inputs, "outputs": ["y0", "y1"]}, tags.CONCATENATE)
    outer = tagged({"forward": [inner, node], "inputs": inputs, "outputs": node["outputs"]}, tags.COMPOSE)
    box = box_of(node)
    if box is not None:
        intervals = {name: [low, high + 2 * width] for name, (low, high) in zip(inputs, box, strict=True)}
        outer["bounding_box"] = tagged({"ignore": [], "intervals": intervals, "order": "F"}, tags.BOUNDING_BOX)
    step = tagged({**first, "transform": outer}, first.tag)
    return tagged({**tree, "steps": [step, *others]}, tree.tag)


def _through(transforms: list[dict], x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values: tuple[np.ndarray, ...] = (x, y)
    for node in transforms:
        values = evaluate(node, *values)
    first, second = values
    return first, second


class Wcs:
    """WCS of an image, evaluated from its tree; it is called as gwcs.wcs.WCS.

    Parameters
    ----------
    tree : dict
        Tree of the WCS.

    Attributes
    ----------
    bounding_box : tuple or None
        First and last x, and first and last y.
    """

    def __init__(self, tree: dict):
        self._tree = tree
        self._transforms = [step["transform"] for step in tree["steps"] if step.get("transform") is not None]
        try:
            self.bounding_box = box_of(self._transforms[0])
        except UnknownTransform:
            self.bounding_box = self._object.bounding_box

    @functools.cached_property
    def _object(self):
        return wcs_of_tree(self._tree)

    def __call__(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Transform pixels to positions on the sky.

        Parameters
        ----------
        x, y : numpy.ndarray
            Pixels, counted from 0 at the middle of the first one; of one shape.

        Returns
        -------
        ra, dec : numpy.ndarray
            Degrees, ICRS; NaN outside the bounding box.
        """
        x, y = np.asarray(x, float), np.asarray(y, float)
        try:
            ra, dec = _through(self._transforms, x, y)
        except UnknownTransform:
            return self._object(x, y)
        if self.bounding_box is not None:
            (x0, x1), (y0, y1) = self.bounding_box
            outside = (x < x0) | (x > x1) | (y < y0) | (y > y1)
            ra, dec = np.where(outside, np.nan, ra), np.where(outside, np.nan, dec)
        return ra, dec

    def invert(self, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Transform positions on the sky to pixels.

        Parameters
        ----------
        ra, dec : numpy.ndarray
            Degrees, ICRS; of one shape.

        Returns
        -------
        x : numpy.ndarray
            Pixels along x; also beyond the bounding box.
        y : numpy.ndarray
            Pixels along y.
        """
        try:
            backward = [inverse(node) for node in reversed(self._transforms)]
            return _through(backward, np.asarray(ra, float), np.asarray(dec, float))
        except UnknownTransform:
            return self._object.invert(ra, dec)
