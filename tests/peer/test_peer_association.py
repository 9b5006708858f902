"""Association files: romancal reads those of rampflow, and rampflow reads those of romancal."""

import json

import make_association
import pytest

from rampflow.workflow.association import find_members

pytest.importorskip("romancal")

pytestmark = pytest.mark.peer

NAMES = [f"r0000201001001001001_000{n}_wfi01_f158_uncal.asdf" for n in (1, 2)]


@pytest.fixture
def exposures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        (tmp_path / name).write_text("")
    return tmp_path


def test_romancal_reads_ours(exposures):
    from romancal.associations import load_asn

    assert make_association.main(["L1_asn.json", *NAMES]) == 0
    with open("L1_asn.json") as file:
        product = load_asn(file)["products"][0]
    assert [(member["expname"], member["exptype"]) for member in product["members"]] == [(n, "science") for n in NAMES]


def test_we_read_romancals(exposures):
    from romancal.associations.asn_from_list import _cli

    _cli(["-o", "L1_asn.json", "--product-name", "visit", *NAMES])
    assert json.loads((exposures / "L1_asn.json").read_text())["asn_rule"] == "DMS_ELPP_Base"
    found = find_members("L1_asn.json", exposures)
    assert [(member.path.name, member.association) for member in found] == [(n, "visit") for n in NAMES]
