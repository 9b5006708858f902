"""Products that are damaged, or are those of another exposure or run."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rampflow.files.asdf_writer import create_asdf
from rampflow.workflow.intact import find_fault

PICTURE = bytes.fromhex("89504e470d0a1a0a") + bytes(100) + b"IEND\xaeB`\x82"


def write_products(folder, stem, date):
    """The products of an exposure, as far as their names and dates go."""
    folder.mkdir(exist_ok=True)
    for kind in ("cal", "wcs", "segm"):
        name = f"{stem}_{kind}.asdf"
        with create_asdf(folder / name, {"roman": {"meta": {"filename": name, "file_date": date}}}):
            pass
    meta = {"filename": f"{stem}_cat.parquet", "image.file_date": date.replace("T", " ") + "000"}
    schema = pa.schema([("ra", pa.float64())], metadata={f"roman.meta.{key}": value for key, value in meta.items()})
    pq.write_table(pa.table({"ra": [1.0]}, schema=schema), folder / f"{stem}_cat.parquet")
    (folder / f"{stem}_cal.png").write_bytes(PICTURE)
    (folder / f"{stem}_tweakreg.json").write_text(json.dumps({"association": stem}))


@pytest.fixture
def products(tmp_path):
    write_products(tmp_path / "a", "one", "2026-11-29T03:02:34.166")
    write_products(tmp_path / "a", "two", "2026-11-29T03:02:35.166")
    write_products(tmp_path / "b", "one", "2026-11-28T03:02:34.166")
    return tmp_path / "a"


def test_sound_products_have_no_fault(products):
    assert {find_fault(path) for path in products.iterdir()} == {""}


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("end", ["cal.asdf", "wcs.asdf", "segm.asdf", "cat.parquet", "cal.png", "tweakreg.json"])
def test_cut_products_are_damaged(products, end, share):
    path = products / f"one_{end}"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert find_fault(path) == "it is damaged"


@pytest.mark.parametrize("end", ["cal.asdf", "wcs.asdf", "segm.asdf", "cat.parquet", "tweakreg.json"])
def test_products_of_another_exposure_are_told_by_their_metadata(products, end):
    shutil.copyfile(products / f"two_{end}", products / f"one_{end}")
    assert find_fault(products / f"one_{end}") == f"it is two_{end} by its metadata"


def test_a_catalog_of_an_earlier_run_is_told_by_the_date_of_its_image(products):
    shutil.copyfile(products.parent / "b" / "one_cat.parquet", products / "one_cat.parquet")
    assert "2026-11-28" in find_fault(products / "one_cat.parquet")
    (products / "one_cal.asdf").unlink()
    assert find_fault(products / "one_cat.parquet") == "", "nothing to compare it with"
