"""An association file from a list of exposures, one product per visit."""

import json
import os

import make_association

from rampflow.workflow.association import find_members


def test_exposures_are_grouped_by_visit(tmp_path, capsys):
    names = [f"r00002010010010010{visit:02d}_000{n}_wfi01_f158_uncal.asdf" for visit in (2, 1) for n in (2, 1)]
    (tmp_path / "raw").mkdir()
    for name in names:
        (tmp_path / "raw" / name).write_text("")
    output = tmp_path / "lists" / "L1_asn.json"
    assert make_association.main([str(output), *(str(tmp_path / "raw" / name) for name in names)]) == 0
    content = json.loads(output.read_text())
    assert content["program"] == "00002"
    assert [p["name"] for p in content["products"]] == ["r0000201001001001001", "r0000201001001001002"]
    members = [[m["expname"] for m in p["members"]] for p in content["products"]]
    assert members == [[os.path.join("..", "raw", name) for name in names[i : i + 2][::-1]] for i in (2, 0)]
    found = find_members(str(output), tmp_path)
    assert sorted(m.path.resolve() for m in found) == sorted((tmp_path / "raw" / name).resolve() for name in names)


def test_files_that_are_not_raw_exposures_are_refused(tmp_path, capsys):
    for name in ("r1_flat.asdf", "r1_uncal.asdf"):
        (tmp_path / name).write_text("")
    image, raw, missing = (str(tmp_path / name) for name in ("r1_flat.asdf", "r1_uncal.asdf", "r2_uncal.asdf"))
    for output, exposures, expected in (
        ("a.json", [image], f"{image}: is not a raw exposure by its name"),
        ("a.json", [raw, missing], f"{missing}: does not exist"),
        ("a.json", [raw, raw], f"{raw}: is given 2 times"),
        ("a.txt", [raw], "must end in .json"),
    ):
        assert make_association.main([str(tmp_path / output), *exposures]) == 1
        assert expected in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 2
