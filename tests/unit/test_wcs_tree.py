"""WCS trees: results equal those of gwcs, and unsupported transforms are left to gwcs."""

import numpy as np
import pytest
from astropy import units
from astropy.modeling import models
from astropy.modeling.models import AffineTransformation2D, Const1D, Identity, Mapping, Polynomial1D, Polynomial2D, Scale, Shift
from gwcs.geometry import CartesianToSpherical, SphericalToCartesian
from simulator.simulate_references import Detector, make_distortion
from small_files import META

from rampflow.wcs import wcs_tree
from rampflow.wcs.building import build_wcs
from rampflow.wcs.conversion import tree_of_wcs, wcs_of_tree
from rampflow.wcs.footprint import s_region
from rampflow.wcs.wcs_tree import UnknownTransform, Wcs, box_of, evaluate, inverse, with_border

SHAPE = (248, 248)
POINTING = {name: META[f"wcsinfo.{name}"] for name in ("v2_ref", "v3_ref")} | {
    "roll_ref": 60.0,
    "ra_ref": 0.0,
    "dec_ref": -66.0,
}
X, Y = np.meshgrid(np.linspace(-0.5, 247.5, 11), np.linspace(-0.5, 247.5, 11))
SKY = {"rtol": 0, "atol": 1e-12}  # degrees


def distortion():
    return next(iter(make_distortion(Detector("WFI07", 256, 1)).values())).coordinate_distortion_transform.copy()


def assigned(model, scale=1.00005):
    return tree_of_wcs(build_wcs(model, POINTING, scale, SHAPE))


@pytest.fixture(scope="module")
def corrected():
    """A WCS that tweakwcs has corrected."""
    from tweakwcs import RomanWCSCorrector

    corrector = RomanWCSCorrector(wcs=wcs_of_tree(assigned(distortion())), wcsinfo=POINTING)
    corrector.set_correction(matrix=[[1.0001, 2e-4], [-3e-4, 0.9999]], shift=[0.3, -0.2])
    return tree_of_wcs(corrector.wcs)


@pytest.fixture
def alone(monkeypatch):
    """Without gwcs's help."""
    monkeypatch.setattr(wcs_tree, "wcs_of_tree", None)


@pytest.mark.parametrize("which", ["assigned", "corrected"])
def test_positions_equal_those_of_gwcs(which, corrected, alone):
    tree = corrected if which == "corrected" else assigned(distortion())
    ours, theirs = Wcs(tree), wcs_of_tree(tree)
    ra, dec = ours(X, Y)
    np.testing.assert_allclose((ra, dec), theirs(X, Y), **SKY)
    inner = np.s_[1:-1, 1:-1]  # gwcs's inverse is NaN where its way there and back ends outside the bounding box
    np.testing.assert_allclose(ours.invert(ra[inner], dec[inner]), theirs.invert(ra[inner], dec[inner]), rtol=0, atol=1e-8)
    np.testing.assert_allclose(ours(100.0, 50.0), theirs(100.0, 50.0), **SKY)
    assert ours(np.empty(0), np.empty(0))[0].shape == (0,)
    assert ours.bounding_box == theirs.bounding_box.bounding_box(order="F")
    np.testing.assert_array_equal(np.isnan(ours([-1, 0, 0], [0, 248, 0])), [[True, True, False]] * 2)
    assert s_region(ours) == s_region(theirs)


def sphere(wrap):
    """A rotation of the sphere, with longitudes up to `wrap`."""
    rotation = models.RotationSequence3D([10.0, -70.0, 200.0, 5.0], axes_order="zyxz")
    return SphericalToCartesian(wrap_lon_at=wrap) | rotation | CartesianToSpherical(wrap_lon_at=wrap)


MODELS = [
    Shift(1.5) & Scale(-2.0),
    Mapping((1, 0)) | Identity(1) & Scale(3.0),
    AffineTransformation2D([[1, 0.2], [-0.1, 2]], [3, -4]),
    Mapping((0, 0, 1)) | Const1D(2.0) & Identity(2) | Mapping((1, 2)),
    Polynomial1D(3, c0=1, c1=2, c3=-0.01) & Polynomial1D(1, c0=-4, c1=0.1),
    Mapping((0, 1, 0, 1)) | Polynomial2D(3, c0_0=1, c1_0=2, c1_2=1e-5) & Polynomial2D(1, c0_1=1),
    Identity(2) + Mapping((1, 0)),
    Identity(2) - Mapping((1, 0)),
    Identity(2) * Mapping((1, 0)),
    Mapping((0, 1)) / (Shift(400) & Shift(500)),
    (Scale(0.3) & Scale(0.3)) | sphere(180),
    (Scale(0.3) & Scale(0.3)) | sphere(360),
]


@pytest.mark.parametrize("model", MODELS)
def test_each_transform_equals_that_of_astropy_or_gwcs(model, alone):
    tree = tree_of_wcs(model)
    np.testing.assert_allclose(evaluate(tree, X, Y), model(X, Y), rtol=1e-14, atol=1e-12)
    try:
        expected = model.inverse
    except NotImplementedError:
        with pytest.raises(UnknownTransform):
            inverse(tree)
    else:
        np.testing.assert_allclose(evaluate(inverse(tree), X, Y), expected(X, Y), rtol=1e-13, atol=1e-12)


def kinds(node):
    """Kinds of the transforms in a tree."""
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    found = {wcs_tree.transform_kind(node)} if "inputs" in node and hasattr(node, "tag") else set()
    return found.union(*(kinds(part) for part in parts if isinstance(part, dict | list)))


def test_every_kind_of_transform_is_compared():
    compared = set().union(*(kinds(tree_of_wcs(model)) for model in MODELS))
    assert compared == set(wcs_tree.KINDS)


UNKNOWN = [
    Mapping((0, 1)) | models.Rotation2D(30.0),
    Mapping((0, 1, 0, 1)) | Polynomial2D(1, c1_0=1, x_domain=(-2, 2)) & Polynomial2D(1, c0_1=1),
]


@pytest.mark.parametrize("model", UNKNOWN)
@pytest.mark.slow
def test_unsupported_transforms_are_left_to_gwcs(model):
    with pytest.raises(UnknownTransform):
        evaluate(tree_of_wcs(model), X, Y)
    whole = model.copy() | distortion()
    whole.inverse = distortion().inverse | models.Rotation2D(-30.0)
    tree = assigned(whole)
    ours, theirs = Wcs(tree), wcs_of_tree(tree)
    np.testing.assert_array_equal(ours(X, Y), theirs(X, Y))
    np.testing.assert_array_equal(ours.invert(*ours(X, Y)), theirs.invert(*theirs(X, Y)))
    assert s_region(ours) == s_region(theirs)


def test_a_parameter_with_a_unit_is_unsupported():
    with pytest.raises(UnknownTransform):
        evaluate(tree_of_wcs(Shift(1 * units.pix) & Shift(1 * units.pix)), X, Y)


@pytest.mark.parametrize("node", [{"inputs": ["a", "b"], "intervals": {"b": [5, 6], "a": [1, 2]}}, [[5, 6], [1, 2]]])
def test_a_bounding_box_is_read_in_both_forms(node):
    model = {"inputs": ["a", "b"], "bounding_box": node}
    assert box_of(model) == ((1, 2), (5, 6))
    assert box_of({"inputs": ["a", "b"]}) is None


@pytest.mark.parametrize("which", ["assigned", "corrected"])
def test_the_wcs_with_a_border_is_that_of_shifted_pixels(which, corrected):
    """Tree of the WCS product; gwcs reads it, and it is the original with its pixels counted from the border's corner."""
    tree = corrected if which == "corrected" else assigned(distortion())
    inner, outer = wcs_of_tree(tree), wcs_of_tree(with_border(tree, 4))
    np.testing.assert_allclose(outer(X + 4, Y + 4), inner(X, Y), **SKY)
    assert outer.bounding_box.bounding_box(order="F") == ((-0.5, 255.5), (-0.5, 255.5))
    assert outer.available_frames == inner.available_frames
