"""Products that are damaged, or are those of another exposure or run."""

import shutil

import pytest
from products import write_products

from rampflow.workflow.intact import find_fault


@pytest.fixture
def products(tmp_path):
    write_products(tmp_path / "a", "one", "2026-11-29T03:02:34.166")
    write_products(tmp_path / "a", "two", "2026-11-29T03:02:35.166")
    write_products(tmp_path / "b", "one", "2026-11-28T03:02:34.166")
    return tmp_path / "a"


def test_sound_products_have_no_fault(products):
    assert {find_fault(path) for path in products.iterdir()} == {""}


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("end", ["cal.asdf", "wcs.asdf", "segm.asdf", "cat.parquet", "cal.png", "tweakreg.json", "qa.json"])
def test_cut_products_are_damaged(products, end, share):
    path = products / f"one_{end}"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert find_fault(path) == "it is damaged"


@pytest.mark.parametrize("end", ["cal.asdf", "wcs.asdf", "segm.asdf", "cat.parquet", "tweakreg.json", "qa.json"])
def test_products_of_another_exposure_are_told_by_their_metadata(products, end):
    shutil.copyfile(products / f"two_{end}", products / f"one_{end}")
    assert find_fault(products / f"one_{end}") == f"it is two_{end} by its metadata"


def test_a_catalog_of_an_earlier_run_is_told_by_the_date_of_its_image(products):
    shutil.copyfile(products.parent / "b" / "one_cat.parquet", products / "one_cat.parquet")
    assert "2026-11-28" in find_fault(products / "one_cat.parquet")
    (products / "one_cal.asdf").unlink()
    assert find_fault(products / "one_cat.parquet") == "", "nothing to compare it with"
