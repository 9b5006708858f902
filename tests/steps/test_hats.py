"""HATS catalogs as they are published: collections, partitions as folders, other columns, addresses, and the shared cache."""

import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy_healpix import HEALPix
from small_files import SCRIPTS, write_image

from rampflow.astrometry import check_astrometric_catalog, hats, partition_cache, read_star_table, source_files
from rampflow.astrometry.excerpt import write_excerpt
from rampflow.astrometry.region import Circle, Region
from rampflow.astrometry.star_catalogs import CatalogUnavailable, fetch_stars
from rampflow.astrometry.stores import open_store
from rampflow.errors import RampflowError

RA, DEC = 150.0, 2.0
REGION = Region((Circle(RA, DEC, 0.05),))
EPOCH = 2027.0
CORNER = Region((Circle(RA - 0.05, DEC + 0.05, 0.025),))
STARS = np.random.default_rng(4).uniform(-0.1, 0.1, (2, 400)) + [[RA], [DEC]]
INSIDE = np.sort(STARS[0][REGION.contains(*STARS)])
PROPERTIES = {
    "obs_collection": "two_micron",
    "dataproduct_type": "object",
    "hats_nrows": "400",
    "hats_creation_date": "2026-01-02T03\\:04UTC",
    "hats_coordinate_epoch": "J2000.5",
}


def write_catalog(
    folder, *, suffix=".parquet", ra="ra", dec="dec", index="_healpix_29", order=29, info=True, extra=(), **changes
):
    """A HATS catalog of `STARS` in partitions of order 6, by the rules of the IVOA's note."""
    grid = {k: HEALPix(2**k, order="nested").lonlat_to_healpix(*(STARS * u.deg)) for k in (6, order)}
    partitions = []
    for pixel in np.unique(grid[6]):
        rows = np.flatnonzero(grid[6] == pixel)
        rows = rows[np.argsort(grid[order][rows])]
        columns = {ra: STARS[0][rows], dec: STARS[1][rows], **{name: np.full(len(rows), value) for name, value in extra}}
        table = pa.table(columns | ({index: grid[order][rows]} if index else {}))
        place = folder / f"dataset/Norder=6/Dir={pixel // 10000 * 10000}"
        place.mkdir(parents=True, exist_ok=True)
        if suffix == "/":
            (place / f"Npix={pixel}").mkdir()
            half = len(table) // 2
            pq.write_table(table[:half], place / f"Npix={pixel}" / "part0.parquet")
            pq.write_table(table[half:], place / f"Npix={pixel}" / "part1.snappy.parquet")
            (place / f"Npix={pixel}" / "_SUCCESS").write_text("")
        else:
            pq.write_table(table, place / f"Npix={pixel}{suffix}")
        partitions.append(f"6,{pixel}\n")
    if info:
        (folder / "partition_info.csv").write_text("Norder,Npix\n" + "".join(partitions))
    known = PROPERTIES | {"hats_npix_suffix": suffix, "hats_col_ra": ra, "hats_col_dec": dec} | changes
    lines = ["# HATS catalog", *(f"{key}={value}" for key, value in known.items())]
    (folder / "hats.properties").write_text("\n".join(lines) + "\n")
    return folder


def ras(retrieved):
    return np.sort(retrieved.stars["ra"])


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"suffix": "/"},
        {"suffix": ".parq"},
        {"ra": "RAJ2000", "dec": "DEJ2000"},
        {"index": "healpix13", "order": 13, "hats_col_healpix": "healpix13", "hats_col_healpix_order": 13},
        {"index": "_healpix_13", "order": 13, "hats_col_healpix": "_healpix_13"},
        {"ra": "RA", "dec": "Dec", "hats_col_ra": "ra", "hats_col_dec": "dec"},
        {"index": None},
        {"info": False},
        {"info": False, "suffix": "/"},
    ],
    ids=str,
)
def test_the_stars_are_the_same_in_every_layout(tmp_path, layout):
    folder = write_catalog(tmp_path / "catalog", **layout)
    assert check_astrometric_catalog(str(folder), tmp_path) == str(folder) and source_files(str(folder))
    found = fetch_stars(str(folder), REGION, EPOCH, 10)
    np.testing.assert_array_equal(ras(found), INSIDE)
    assert found.description == ("two_micron", "HATS of 2026-01-02T03:04UTC, 400 rows", 2000.5)


@pytest.mark.parametrize("info", [True, False])
@pytest.mark.parametrize("suffix", ["/", ".parquet"])
def test_other_files_beside_the_tables_are_left_out(tmp_path, suffix, info, caplog):
    """Checksums, remarks, and what programs leave."""
    folder = write_catalog(tmp_path / "catalog", suffix=suffix, info=info)
    for path in list(folder.glob("dataset/*/*/Npix=*/" if suffix == "/" else "dataset/*/*/")):
        for name in (".DS_Store", "_SUCCESS", "part0.parquet.crc", "README.txt", "Npix=3.parquet.crc"):
            (path / name).write_text("no table")
    np.testing.assert_array_equal(ras(fetch_stars(str(folder), REGION, EPOCH, 10)), INSIDE)
    assert ("Npix=3.parquet.crc: is not read: its name does not end in .parquet" in caplog.text) == (suffix == "/")


def test_a_collection_gives_its_primary_catalog(tmp_path):
    write_catalog(tmp_path / "main")
    write_catalog(tmp_path / "main_margin", dataproduct_type="margin")
    (tmp_path / hats.COLLECTION).write_text(
        "obs_collection=both\nhats_primary_table_url=main\nall_margins=main_margin\ndefault_margin=main_margin\n"
    )
    assert check_astrometric_catalog(str(tmp_path), tmp_path) == str(tmp_path)
    np.testing.assert_array_equal(ras(fetch_stars(str(tmp_path), REGION, EPOCH, 10)), INSIDE)
    assert {Path(name).parent.name for name in source_files(str(tmp_path))} == {tmp_path.name, "main", "main_margin"}
    with pytest.raises(RampflowError, match="table of the kind margin .*; give the catalog of objects, or its collection"):
        fetch_stars(str(tmp_path / "main_margin"), REGION, EPOCH, 10)


def test_proper_motions_need_an_epoch_which_the_properties_may_have(tmp_path):
    motions = [("pmRA", 100.0), ("pmDEC", 0.0)]
    moved = fetch_stars(str(write_catalog(tmp_path / "a", extra=motions)), REGION, EPOCH, 10).stars
    expected = 100.0 * (EPOCH - 2000.5) / 3.6e6 / np.cos(np.radians(DEC))
    np.testing.assert_allclose(np.sort(moved["ra"]) - INSIDE, expected, rtol=1e-3)
    with pytest.raises(RampflowError, match="no column ref_epoch"):
        fetch_stars(str(write_catalog(tmp_path / "b", extra=motions, hats_coordinate_epoch="")), REGION, EPOCH, 10)
    with pytest.raises(RampflowError, match="pmDE for pmdec"):
        fetch_stars(str(write_catalog(tmp_path / "c", extra=[("pmRA", 1.0), ("pmDE", 1.0)])), REGION, EPOCH, 10)


def test_placeholders_of_motions_and_epochs_move_no_star(tmp_path):
    folder = write_catalog(tmp_path / "a", extra=[("pmra", -1e6), ("pmdec", 0.0)])
    found = fetch_stars(str(folder), REGION, EPOCH, 10)
    assert not len(found.stars["ra"]) and f"{len(INSIDE)} of {len(INSIDE)} stars have no proper motion" in found.reason
    folder = write_catalog(tmp_path / "b", extra=[("pmra", 1.0), ("pmdec", 0.0), ("ref_epoch", 57388.0)])
    with pytest.raises(RampflowError, match=r"b: its ref_epoch is 57388; it must be a Julian year, as 2016\.0"):
        fetch_stars(str(folder), REGION, EPOCH, 10)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hats_frame": "galactic"}, "positions are galactic"),
        ({"hats_col_ra": "alpha"}, "no column alpha"),
        ({"dataproduct_type": "index"}, "of the kind index"),
        ({"hats_col_healpix_order": "40"}, "is 40; it must be a number from 0 to 29"),
        ({"hats_col_healpix_order": "ten"}, "is ten; it must be a number from 0 to 29"),
        # Without this check, the filter would leave out all stars, as if there were none.
        ({"hats_col_healpix_order": "13"}, "outside its partition .*: the order of the pixels .* is not 13"),
    ],
)
def test_catalogs_without_usable_positions_are_refused(tmp_path, changes, says):
    folder = write_catalog(tmp_path / "a")
    with (folder / "hats.properties").open("a") as file:
        file.writelines(f"{key} = {value}\n" for key, value in changes.items())
    with pytest.raises(RampflowError, match=says):
        fetch_stars(str(folder), REGION, EPOCH, 10)


# ----------------------------------------------------------------------------------------------------------- the network
def lose_column(path, name):
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns([name]), path)


def change_to_text(path, name):
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.set_column(table.column_names.index(name), name, table[name].cast(pa.string())), path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-50]),
        lambda path: path.write_bytes(b""),
        lambda path: lose_column(path, "dec"),
        lambda path: change_to_text(path, "_healpix_29"),
        lambda path: path.unlink(),
    ],
    ids=["cut", "empty", "without dec", "pixels as text", "missing"],
)
@pytest.mark.parametrize("number", [0, -1])
def test_a_damaged_partition_is_named(tmp_path, damage, number):
    partition = sorted(write_catalog(tmp_path / "catalog").rglob("Npix=*"))[number]
    damage(partition)
    with pytest.raises(RampflowError, match=partition.name):
        fetch_stars(str(tmp_path / "catalog"), REGION, EPOCH, 10)


@pytest.mark.parametrize("line", ["6,", "six,1", "40,5", "-1,5", "6,49152", "6,-1", "6,5.5"])
def test_a_damaged_list_of_partitions_is_refused(tmp_path, line):
    folder = write_catalog(tmp_path / "catalog")
    with (folder / hats.INFO).open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(RampflowError, match=f"{hats.INFO} is damaged"):
        fetch_stars(str(folder), REGION, EPOCH, 10)


@pytest.mark.parametrize("lost", range(1, 8))
@pytest.mark.parametrize("remote", [False, True])
def test_a_list_that_is_cut_in_its_last_line_is_refused(tmp_path, lost, remote):
    """Most cuts leave the number of another pixel of the sky. A catalog without an end of its last line is sound."""
    folder = write_catalog(tmp_path / "catalog")
    store = open_store(f"{Server(tmp_path).address}/catalog" if remote else str(folder))
    text = (folder / hats.INFO).read_bytes()
    (folder / hats.INFO).write_bytes(text[:-lost])
    if lost == 1:
        np.testing.assert_array_equal(np.sort(hats.read_hats(store, REGION)[0]["ra"]), INSIDE)
    else:
        with pytest.raises(hats.DamagedFile, match=f"{hats.INFO}:? (is cut|is damaged|has no line for Norder=6, Npix=)"):
            hats.read_hats(store, REGION)


def test_a_list_that_lacks_a_partition_of_the_folder_is_refused(tmp_path):
    folder = write_catalog(tmp_path / "catalog")
    lines = (folder / hats.INFO).read_text().splitlines(keepends=True)
    (folder / hats.INFO).write_text("".join(lines[:-1]))
    pixel = lines[-1].strip().partition(",")[2]
    with pytest.raises(RampflowError, match=f"{hats.INFO} has no line for Norder=6, Npix={pixel}, .*; get the file again"):
        fetch_stars(str(folder), REGION, EPOCH, 10)
    (folder / hats.INFO).write_text("".join([*lines, lines[-1]]))
    with pytest.raises(RampflowError, match=f"{hats.INFO} is damaged: it has a partition twice"):
        fetch_stars(str(folder), REGION, EPOCH, 10)


class Server:
    """A web server of the files below a folder, with ranges or without; `requests` are the method and path of each.

    Of the first answer with the content of the partition `stalled`, the second half is never sent; `stalling` is set then.
    """

    def __init__(self, folder, *, ranges=True, stalled=""):
        self.requests = requests = []
        self.stalling = stalling = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                requests.append((self.command, unquote(self.path)))
                path = folder / unquote(self.path).lstrip("/")
                if not path.is_file():
                    self.send_error(404)
                    return
                body, status = path.read_bytes(), 200
                size = len(body)
                given = self.headers.get("Range")
                if given and ranges:
                    start, stop = map(int, given.removeprefix("bytes=").split("-"))
                    body, status = body[start : stop + 1], 206
                self.send_response(status)
                self.send_header("Content-Length", str(len(body) if self.command == "GET" else size))
                self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
                self.end_headers()
                if self.command == "GET" and path.name == stalled and not stalling.is_set():
                    self.wfile.write(body[: len(body) // 2])
                    stalling.set()
                    threading.Event().wait(60)
                elif self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *arguments):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def partitions(self):
        """Requests for the content of partitions."""
        return [path for method, path in self.requests if method == "GET" and "/Npix=" in path]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_catalog_is_read_from_a_web_server(tmp_path, ranges):
    write_catalog(tmp_path / "catalog")
    server = Server(tmp_path, ranges=ranges)
    source = check_astrometric_catalog(f"{server.address}/catalog/", tmp_path)
    stars, description = hats.read_hats(open_store(source), REGION)
    np.testing.assert_array_equal(np.sort(stars["ra"]), INSIDE)
    assert description.title == "two_micron" and server.partitions()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-50],
        lambda content: content[:4] + bytes(len(content) - 300) + content[-296:],  # pyarrow raises OSError for this one
        lambda content: b"",
    ],
    ids=["cut", "zeros", "empty"],
)
@pytest.mark.slow
def test_a_partition_that_is_damaged_on_the_server_is_a_reason(tmp_path, monkeypatch, caplog, damage):
    path = sorted(write_catalog(tmp_path / "catalog").rglob("Npix=*"))[-1]
    path.write_bytes(damage(path.read_bytes()))
    monkeypatch.setattr("rampflow.astrometry.star_catalogs.FIRST_PAUSE", 0)
    with caplog.at_level("INFO"), pytest.raises(CatalogUnavailable, match=f"{path.name}: is damaged .*; get the file again"):
        fetch_stars(f"{Server(tmp_path).address}/catalog", REGION, EPOCH, 60)
    assert sum("failed" in record.message for record in caplog.records) == 1, "damage is seldom that of the network"


def test_an_address_without_a_catalog_is_a_reason(tmp_path):
    server = Server(tmp_path)
    with pytest.raises(CatalogUnavailable, match="partition_info.csv|can't be listed"):
        fetch_stars(f"{server.address}/nothing", REGION, EPOCH, 60)


@pytest.mark.slow
def test_a_script_that_reads_a_remote_catalog_runs_once(tmp_path):
    """As `rampflow.calibrate` in a script without a function main: another process must not import it."""
    write_catalog(tmp_path / "catalog")
    (tmp_path / "script.py").write_text(
        "import sys\n"
        "from rampflow.astrometry.region import Circle, Region\n"
        "from rampflow.astrometry.star_catalogs import fetch_stars\n"
        "print('begin', flush=True)\n"
        f"found = fetch_stars(sys.argv[1], Region((Circle({RA}, {DEC}, 0.05),)), {EPOCH}, 60)\n"
        "print(len(found.stars['ra']))\n"
    )
    command = [sys.executable, tmp_path / "script.py", f"{Server(tmp_path).address}/catalog"]
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["begin", str(len(INSIDE))], done.stderr


@pytest.mark.slow
def test_partitions_as_folders_of_a_web_server_are_refused(tmp_path):
    write_catalog(tmp_path / "catalog", suffix="/")
    with pytest.raises(CatalogUnavailable, match="can't be listed on a web server; give the catalog by s3://"):
        fetch_stars(f"{Server(tmp_path).address}/catalog", REGION, EPOCH, 60)


def test_the_cache_is_shared_and_follows_the_content(tmp_path, monkeypatch):
    write_catalog(tmp_path / "catalog")
    cache = tmp_path / "cache"
    monkeypatch.setenv(partition_cache.VARIABLE, str(cache))
    server = Server(tmp_path)

    def read():
        server.requests.clear()
        return np.sort(hats.read_hats(open_store(f"{server.address}/catalog"), REGION)[0]["ra"])

    np.testing.assert_array_equal(read(), INSIDE)
    first = server.partitions()
    files = sorted(cache.iterdir())
    assert len(files) == len(set(first)) and all(path.suffix == ".parquet" for path in files)
    np.testing.assert_array_equal(read(), INSIDE)
    assert len(server.partitions()) < len(first), "only the schema is read again"
    # Damaged: read again. Another content on the server: another file.
    files[0].write_bytes(b"PAR1 damaged")
    np.testing.assert_array_equal(read(), INSIDE)
    for path in (tmp_path / "catalog").rglob("*.parquet"):
        os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(read(), INSIDE)
    assert len(list(cache.iterdir())) == 2 * len(files)


def test_a_wrong_bit_in_the_cache_never_moves_a_star(tmp_path, monkeypatch):
    write_catalog(tmp_path / "catalog")
    monkeypatch.setenv(partition_cache.VARIABLE, str(tmp_path / "cache"))
    address, rng = f"{Server(tmp_path).address}/catalog", np.random.default_rng(5)
    for _ in range(20):
        np.testing.assert_array_equal(np.sort(hats.read_hats(open_store(address), REGION)[0]["ra"]), INSIDE)
        for path in (tmp_path / "cache").iterdir():
            content = bytearray(path.read_bytes())
            content[rng.integers(4, len(content))] ^= 1 << rng.integers(8)
            path.write_bytes(content)


def test_a_file_without_tag_and_time_on_the_server_is_not_kept(tmp_path, monkeypatch):
    write_catalog(tmp_path / "catalog")
    monkeypatch.setenv(partition_cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(http.server.BaseHTTPRequestHandler, "send_header", without_state)
    stars, _ = hats.read_hats(open_store(f"{Server(tmp_path).address}/catalog"), REGION)
    np.testing.assert_array_equal(np.sort(stars["ra"]), INSIDE)
    assert not (tmp_path / "cache").exists()


def without_state(handler, key, value, send=http.server.BaseHTTPRequestHandler.send_header):
    if key not in ("ETag", "Last-Modified"):
        send(handler, key, value)


def test_what_a_killed_run_has_left_in_the_cache_is_removed_after_a_day(tmp_path):
    old, new = (tmp_path / f".rampflow-{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir()
        (folder / "a.parquet").write_text("partial")
    os.utime(old, (1, 1))
    partition_cache.remove_oldest(tmp_path, 1.0)
    assert list(tmp_path.iterdir()) == [new]


@pytest.mark.slow
def test_a_killed_job_and_one_beside_it_leave_a_sound_cache(tmp_path):
    """Two associations retrieve the same partitions at once; one is killed in the middle of a partition."""
    catalog, cache = write_catalog(tmp_path / "catalog"), tmp_path / "cache"
    region = {"wcs": {"name": ""}, "wcsinfo.ra_ref": RA, "wcsinfo.dec_ref": DEC, "wcsinfo.s_region": "?"}
    image = write_image(tmp_path / "a_flat.asdf", np.zeros((8, 8)), region)
    partitions = sorted(path.name for path in catalog.rglob("Npix=*"))
    server = Server(tmp_path, stalled=partitions[-1])

    def start(output):
        arguments = ["--images", image, "--astrometric_catalog", f"{server.address}/catalog", "--margin", 720]
        command = [sys.executable, SCRIPTS / "astrometric_catalog.py", output, *arguments]
        return subprocess.Popen([str(word) for word in command], env=os.environ | {partition_cache.VARIABLE: str(cache)})

    killed, other = (tmp_path / f"{name}.parquet" for name in ("killed", "other"))
    first = start(killed)
    assert server.stalling.wait(60)
    assert start(other).wait(60) == 0 and first.poll() is None
    first.kill()
    first.wait()
    expected, _ = read_star_table(other)
    assert len(expected["ra"]) == len(STARS[0]) and not killed.exists()
    kept = {path.name: pq.read_table(path, page_checksum_verification=True).num_rows for path in cache.glob("*.parquet")}
    assert len(kept) == len(partitions) and sum(kept.values()) == len(STARS[0])
    server.requests.clear()
    assert start(killed).wait(60) == 0
    assert len(server.partitions()) < len(partitions), "only the schema is read again"
    for name, values in read_star_table(killed)[0].items():
        np.testing.assert_array_equal(values, expected[name])


KILLED_IN_THE_CACHE = """
import os, signal
from rampflow.astrometry import hats
from rampflow.astrometry.region import Circle, Region
from rampflow.astrometry.stores import open_store
from rampflow.files import parquet

write = parquet.write_table
def write_half(table, path, **options):
    write(table, path, **options)
    os.truncate(path, os.path.getsize(path) // 2)
    os.kill(os.getpid(), signal.SIGKILL)
parquet.write_table = write_half
hats.read_hats(open_store({address!r}), Region((Circle({ra}, {dec}, 0.05),)))
"""


@pytest.mark.slow
def test_a_job_that_is_killed_while_it_writes_into_the_cache_leaves_a_sound_cache(tmp_path, monkeypatch):
    write_catalog(tmp_path / "catalog")
    cache, address = tmp_path / "cache", f"{Server(tmp_path).address}/catalog"
    monkeypatch.setenv(partition_cache.VARIABLE, str(cache))
    for _ in range(2):
        code = KILLED_IN_THE_CACHE.format(address=address, ra=RA, dec=DEC)
        assert subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(SCRIPTS)}).returncode == -9
    partial = list(cache.glob(".rampflow-*/*.parquet"))
    assert len(partial) == 2 and not list(cache.glob("*.parquet"))
    for _ in range(2):
        np.testing.assert_array_equal(np.sort(hats.read_hats(open_store(address), REGION)[0]["ra"]), INSIDE)
    assert list(cache.glob("*.parquet"))


def test_a_cache_that_can_not_be_written_is_no_hindrance(tmp_path, monkeypatch, caplog):
    write_catalog(tmp_path / "catalog")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(partition_cache.VARIABLE, str(tmp_path / "file" / "cache"))
    stars, _ = hats.read_hats(open_store(f"{Server(tmp_path).address}/catalog"), REGION)
    np.testing.assert_array_equal(np.sort(stars["ra"]), INSIDE)


def test_the_oldest_files_of_a_full_cache_are_removed(tmp_path):
    for number in range(5):
        path = tmp_path / f"{number}.parquet"
        path.write_bytes(bytes(1000))
        os.utime(path, (number, number))
    (tmp_path / "notes.txt").write_text("kept")
    partition_cache.remove_oldest(tmp_path, 2.5e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3.parquet", "4.parquet", "notes.txt"]


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A collection with partitions as folders in a bucket; its address."""
    import boto3
    from moto.server import ThreadedMotoServer

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    write_catalog(tmp_path / "stars" / "main", suffix="/")
    (tmp_path / "stars" / hats.COLLECTION).write_text("hats_primary_table_url=main\n")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
    client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    client.create_bucket(Bucket="public", ACL="public-read")
    for path in (tmp_path / "stars").rglob("*"):
        if path.is_file():
            client.upload_file(str(path), "public", str(path.relative_to(tmp_path)), {"ACL": "public-read"})
    yield "s3://public/stars"
    server.stop()


@pytest.mark.slow
def test_a_collection_is_read_from_any_bucket_and_kept_in_the_cache(tmp_path, bucket, monkeypatch):
    monkeypatch.setenv(partition_cache.VARIABLE, str(tmp_path / "cache"))
    assert check_astrometric_catalog(bucket, tmp_path) == bucket
    for _ in range(2):
        np.testing.assert_array_equal(ras(fetch_stars(bucket, REGION, EPOCH, 120)), INSIDE)
    assert len(list((tmp_path / "cache").iterdir())) >= 2
    shutil.rmtree(tmp_path / "cache")
    np.testing.assert_array_equal(ras(fetch_stars(bucket, REGION, EPOCH, 120)), INSIDE)


@pytest.mark.parametrize(
    "layout", [{}, {"suffix": "/"}, {"ra": "RAJ2000", "dec": "DEJ2000", "index": "_healpix_19", "order": 19}]
)
def test_an_excerpt_has_the_stars_of_a_region(tmp_path, layout):
    """A region in one of the two partitions."""
    others = [("other", 1.0), ("pmra", 3.0), ("pmdec", 4.0), ("ref_epoch", 2016.0)]
    index = {"hats_col_healpix": layout["index"], "hats_col_healpix_order": "19"} if "index" in layout else {}
    whole = write_catalog(tmp_path / "whole", extra=others, **layout, **index)
    excerpt = tmp_path / "excerpt"
    number = write_excerpt(open_store(str(whole)), CORNER, excerpt)
    files = [path for path in (excerpt / "dataset").rglob("*") if path.is_file()]
    assert number == len(files) < len([path for path in (whole / "dataset").rglob("*.parq*") if path.is_file()])
    assert all("other" not in pq.read_schema(path).names for path in files)
    stars, description = hats.read_hats(open_store(str(excerpt)), CORNER)
    expected, known = hats.read_hats(open_store(str(whole)), CORNER)
    assert description == known and stars.keys() == expected.keys()
    for name, values in stars.items():
        np.testing.assert_array_equal(values, expected[name])
    # Partitions that are there are not read again.
    times = [path.stat().st_mtime_ns for path in files]
    assert write_excerpt(open_store(str(whole)), CORNER, excerpt) == number
    assert [path.stat().st_mtime_ns for path in files] == times
