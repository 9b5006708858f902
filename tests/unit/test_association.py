"""The user's input becomes a list of exposures, or an error."""

import json

import pytest

from rampflow.errors import RampflowError
from rampflow.workflow.association import Member, find_excluded, find_members, read_association
from rampflow.workflow.exposure_names import stem_of


@pytest.fixture
def folder(tmp_path):
    """Raw files r1 to r3 in a folder `raw`, beside other files."""
    (tmp_path / "raw").mkdir()
    for name in ("r1_uncal.asdf", "r3_uncal.asdf", "r2_uncal.asdf", "r1_cal.asdf", "r1_flat.asdf", "notes.txt"):
        (tmp_path / "raw" / name).write_text("")
    (tmp_path / "raw" / "sub_uncal.asdf").mkdir()
    return tmp_path


def associate(folder, name="asn.json", **products):
    content = [
        {"name": n, "members": [m if isinstance(m, dict) else {"expname": m, "exptype": "science"} for m in members]}
        for n, members in products.items()
    ]
    (folder / name).write_text(json.dumps({"asn_type": "image", "products": content}))
    return name


def test_each_file_is_its_own_association(folder):
    for given in ("raw/r1_uncal.asdf", ["raw/r1_uncal.asdf"], [str(folder / "raw/r1_uncal.asdf")]):
        assert find_members(given, folder) == [Member(folder / "raw/r1_uncal.asdf", "r1")]
    names = ["raw/r2_uncal.asdf", "raw/r1_uncal.asdf"]
    assert [m.association for m in find_members(names, folder)] == ["r2", "r1"]


def test_folders_give_their_raw_files_in_order(folder):
    for given in ("raw", "raw/", str(folder / "raw")):
        assert find_members(given, folder) == [Member(folder / f"raw/r{n}_uncal.asdf", f"r{n}") for n in (1, 2, 3)]


def test_associations_give_their_members(folder):
    associate(folder, visit=["raw/r2_uncal.asdf", "raw/r1_uncal.asdf"], other=["raw/r3_uncal.asdf"])
    found = find_members("asn.json", folder)
    assert [(m.path.name, m.association) for m in found] == [
        ("r2_uncal.asdf", "visit"),
        ("r1_uncal.asdf", "visit"),
        ("r3_uncal.asdf", "other"),
    ]


def test_members_are_relative_to_the_association_file(folder):
    associate(folder / "raw", visit=["r1_uncal.asdf", str(folder / "raw/r2_uncal.asdf")])
    found = find_members(["raw/asn.json"], folder)
    assert [m.path for m in found] == [folder / "raw/r1_uncal.asdf", folder / "raw/r2_uncal.asdf"]
    assert all(m.path.is_file() for m in found)


def test_members_that_are_not_science_are_left_out(folder):
    members = [{"expname": "raw/r1_uncal.asdf"}, {"expname": "background.txt", "exptype": "background"}]
    associate(folder, visit=members)
    assert [m.path.name for m in find_members("asn.json", folder)] == ["r1_uncal.asdf"]


def test_a_member_may_name_the_catalog_to_align_it_with(folder):
    (folder / "own.ecsv").write_text("")
    member = {"expname": "raw/r1_uncal.asdf", "exptype": "science", "tweakreg_catalog": "own.ecsv"}
    found = find_members(associate(folder, a=[member, "raw/r2_uncal.asdf"]), folder)
    assert [m.tweakreg_catalog for m in found] == [folder / "own.ecsv", None]
    (folder / "own.ecsv").unlink()
    problem = find_members("asn.json", folder)[0].problem
    assert "asn.json: the tweakreg_catalog 'own.ecsv' of the member 'raw/r1_uncal.asdf' does not exist" in problem


def test_exposures_that_do_not_exist_are_listed_with_their_problem(folder):
    """The inventory names them with all other bad files."""
    associate(folder, visit=["raw/r1_uncal.asdf", "raw/gone_uncal.asdf", "raw/r2_uncal.asdf"])
    inputs = ["asn.json", "lost_uncal.asdf"]
    found = {stem_of(m.path): m.problem for m in find_members(inputs, folder)}
    assert "the member 'raw/gone_uncal.asdf' of 'visit' does not exist" in found["gone"]
    assert "input 'lost_uncal.asdf': does not exist" in found["lost"] and found["r1"] == found["r2"] == ""
    assert [stem_of(m.path) for m in find_members(inputs, folder, ["gone", "lost"])] == ["r1", "r2"]


@pytest.mark.parametrize("suffix", ["dqinit", "dq_init", "ramp"])
def test_a_ramp_may_stand_for_its_raw_file(folder, suffix):
    (folder / f"raw/r9_{suffix}.asdf").write_text("")
    (member,) = find_members(f"raw/r9_{suffix}.asdf", folder)
    assert (stem_of(member.path), member.association, member.problem) == ("r9", "r9", "")
    associate(folder, visit=[f"raw/r9_{suffix}.asdf", "raw/r1_uncal.asdf"])
    assert [stem_of(m.path) for m in find_members("asn.json", folder)] == ["r9", "r1"]
    assert [stem_of(m.path) for m in find_members(f"raw/lost_{suffix}.asdf", folder, ["lost"])] == []
    # A folder may have the ramps of a run beside the raw files.
    assert [stem_of(m.path) for m in find_members("raw", folder)] == ["r1", "r2", "r3"]


def test_an_empty_input_gives_no_members(folder):
    assert find_members([], folder) == []


def test_a_tilde_is_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert len(find_members("~/raw", folder / "elsewhere")) == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere", "input 'nowhere': does not exist"),
        ("raw/r1_flat.asdf", "r1_flat.asdf: is not a raw exposure by its name, which must end in _uncal.asdf"),
        ("empty", "input 'empty': the folder holds no file"),
        (["raw", "raw/r2_uncal.asdf"], "the exposure r2 is given twice in 'r2'"),
        (["raw/r2_uncal.asdf", "raw/../raw/r2_uncal.asdf"], "given twice"),
        (["raw", "copies"], "two files are named r1_uncal.asdf"),
        (["ramps.json"], "two files are named r1_uncal.asdf and r1_dqinit.asdf"),
        (["asn.json", "raw"], "the exposure r1 is in two associations, 'visit' and 'r1'"),
        ("link_uncal.asdf", None),
    ],
)
def test_invalid_inputs_are_named(folder, given, message):
    (folder / "empty").mkdir()
    (folder / "copies").mkdir()
    (folder / "copies/r1_uncal.asdf").write_text("")
    (folder / "link_uncal.asdf").symlink_to(folder / "raw/r1_uncal.asdf")
    (folder / "raw/r1_dqinit.asdf").write_text("")
    associate(folder, "ramps.json", visit=["raw/r1_uncal.asdf", "raw/r1_dqinit.asdf"])
    associate(folder, visit=["raw/r1_uncal.asdf"])
    if message is None:  # a link is a file with a name of its own
        assert [m.association for m in find_members(given, folder)] == ["link"]
        return
    with pytest.raises(RampflowError) as error:
        find_members(given, folder)
    assert message in str(error.value)


def test_an_exposure_in_two_associations_is_refused(folder):
    associate(folder, visit=["raw/r1_uncal.asdf"], other=["raw/r1_uncal.asdf"])
    with pytest.raises(RampflowError, match="r1 is in two associations, 'visit' and 'other'"):
        find_members("asn.json", folder)
    associate(folder, "one.json", visit=["raw/r1_uncal.asdf"])
    associate(folder, "two.json", again=["raw/r1_uncal.asdf"])
    with pytest.raises(RampflowError, match="'visit' and 'again'"):
        find_members(["one.json", "two.json"], folder)


def test_an_exposure_twice_in_an_association_is_refused(folder):
    associate(folder, visit=["raw/r1_uncal.asdf", "raw/r1_uncal.asdf"])
    with pytest.raises(RampflowError, match="r1 is given twice in 'visit'"):
        find_members("asn.json", folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a readable JSON file"),
        (b"\xff\xfe", "not a readable JSON file"),
        ("[]", "no list 'products'"),
        ("{}", "no list 'products'"),
        ('{"products": []}', "no list 'products'"),
        ('{"products": [1]}', "'name' and a list 'members'"),
        ('{"products": [{"name": "a"}]}', "'name' and a list 'members'"),
        ('{"products": [{"name": "", "members": []}]}', "'name' and a list 'members'"),
        ('{"products": [{"name": "a", "members": []}]}', "names no science member"),
        ('{"products": [{"name": "a", "members": [{}]}]}', "a member of 'a' has no 'expname'"),
        ('{"products": [{"name": "a", "members": ["r1_uncal.asdf"]}]}', "a member of 'a' has no 'expname'"),
        ('{"products": [{"name": "a/b", "members": []}]}', "can't be part of a file name"),
        ('{"products": [{"name": "../b", "members": []}]}', "can't be part of a file name"),
        (
            '{"products": [{"name": "a", "members": [{"expname": "none_uncal.asdf"}]}]}',
            "'none_uncal.asdf' of 'a' does not exist",
        ),
        ('{"products": [{"name": "a", "members": [{"expname": "raw/r1_flat.asdf"}]}]}', "must end in _uncal.asdf"),
    ],
)
def test_a_bad_association_is_named(folder, content, message):
    path = folder / "bad.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        said = read_association(path)[0].problem
    except RampflowError as error:
        said = str(error)
    assert message in said
    assert "bad.json" in said or "_cal.asdf" in said


def test_stems_of_raw_file_names(tmp_path):
    assert stem_of(tmp_path / "r1_0001_wfi01_uncal.asdf") == "r1_0001_wfi01"
    for name in ("_uncal.asdf", "r1.asdf", "r1_uncal.asdf.gz", "r1_UNCAL.asdf"):
        with pytest.raises(RampflowError, match="must end in _uncal.asdf"):
            stem_of(tmp_path / name)


def test_excluded_exposures_are_known_by_their_association(folder):
    associate(folder, visit=["raw/r2_uncal.asdf", "raw/gone_uncal.asdf"], other=["raw/r1_uncal.asdf"])
    found = find_excluded(["asn.json", "raw/r3_uncal.asdf"], folder, ["gone", "r3"])
    assert [(m.association, stem_of(m.path)) for m in found] == [("visit", "gone"), ("r3", "r3")]
    assert find_excluded("raw", folder, []) == []
