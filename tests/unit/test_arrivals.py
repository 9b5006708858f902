"""Files that arrive in a folder: which have arrived, which visits are ready, and what the watch does about them."""

import http.server
import json
import os
import signal
import socketserver
import sys
import threading
import time

import pytest
import watch
from small_files import ramp, write_raw

from rampflow.errors import RampflowError
from rampflow.step.logs import configure_logging, recorded_log
from rampflow.workflow.arrivals import Arrivals

ONE, OTHER = "r0000101001001001001", "r0000101001001001002"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def read(path):
    """Stands for the reader of headers: the content `half` can't be read."""
    if path.read_text() == "half":
        raise RampflowError(f"{path}: ends too early")


def arrivals_of(folder, clock, complete=2, timeout=100.0):
    return Arrivals(folder, complete, timeout, clock, read)


def put(folder, visit, number, content="whole"):
    path = folder / f"{visit}_{number:04d}_wfi01_f158_uncal.asdf"
    path.write_text(content)
    return path


def look(arrivals, clock, seconds=10.0):
    clock.now += seconds
    return arrivals.poll()


# ------------------------------------------------------------------------------------------------------ files and visits
def test_a_file_has_arrived_when_it_is_unchanged_and_can_be_read(tmp_path, clock):
    arrivals = arrivals_of(tmp_path, clock)
    path = put(tmp_path, ONE, 1, "w")
    assert look(arrivals, clock) == ([], [])
    path.write_text("wh")  # it grows
    assert look(arrivals, clock) == ([], [])
    path.write_text("half")
    assert look(arrivals, clock) == ([], [])
    stem = path.name.removesuffix("_uncal.asdf")
    assert look(arrivals, clock) == ([], [f"{stem}: can't be read yet: {path}: ends too early"])
    assert look(arrivals, clock) == ([], []), "said once"
    path.write_text("whole")
    assert look(arrivals, clock) == ([], [])
    assert look(arrivals, clock) == ([f"{stem}: arrived, 1 of 2 of its visit"], [])
    assert look(arrivals, clock) == ([], [])


def test_a_visit_is_ready_when_it_is_complete(tmp_path, clock):
    arrivals = arrivals_of(tmp_path, clock)
    first = put(tmp_path, ONE, 1)
    put(tmp_path, OTHER, 1)
    look(arrivals, clock)
    look(arrivals, clock)
    assert arrivals.ready() == [], "one of two each"
    second = put(tmp_path, ONE, 2)
    look(arrivals, clock)
    assert arrivals.ready() == [], "the second may still grow"
    look(arrivals, clock)
    assert arrivals.ready() == [ONE]
    (product,) = arrivals.start([ONE])["products"]
    assert product["name"] == ONE and [m["expname"] for m in product["members"]] == [str(first), str(second)]
    assert arrivals.ready() == []
    # A late one starts it again at once, with the others.
    put(tmp_path, ONE, 3)
    look(arrivals, clock)
    look(arrivals, clock)
    assert arrivals.ready() == [ONE]
    (product,) = arrivals.start([ONE])["products"]
    assert len(product["members"]) == 3


def test_an_incomplete_visit_is_ready_after_the_time_out_and_again_for_late_files(tmp_path, clock):
    arrivals = arrivals_of(tmp_path, clock, complete=3)
    put(tmp_path, ONE, 1)
    half = put(tmp_path, ONE, 2, "half")
    look(arrivals, clock)
    look(arrivals, clock)
    look(arrivals, clock, 99)
    assert arrivals.ready() == []
    look(arrivals, clock, 1)
    assert arrivals.ready() == [ONE]
    (product,) = arrivals.start([ONE])["products"]
    assert len(product["members"]) == 2, "what can't be read is given to the run, which names it"
    look(arrivals, clock, 1000)
    assert arrivals.ready() == []
    half.write_text("whole")
    look(arrivals, clock)
    look(arrivals, clock)
    assert arrivals.ready() == []
    look(arrivals, clock, 100)
    assert arrivals.ready() == [ONE]
    # Another visit that starts meanwhile has the first one as it was.
    arrivals.start([ONE])
    put(tmp_path, ONE, 3)
    put(tmp_path, OTHER, 1)
    look(arrivals, clock)
    look(arrivals, clock)
    first, other = arrivals.start([OTHER])["products"]
    assert (len(first["members"]), other["name"], len(other["members"])) == (2, OTHER, 1)


def test_a_growing_file_is_no_time_without_files(tmp_path, clock):
    arrivals = arrivals_of(tmp_path, clock)
    put(tmp_path, ONE, 1)
    growing = put(tmp_path, ONE, 2, "h")
    for size in range(2, 30):
        growing.write_text("h" * size)
        look(arrivals, clock, 50)
        assert arrivals.ready() == []


def test_a_file_that_is_replaced_starts_its_visit_again_and_one_that_is_removed_does_not(tmp_path, clock):
    arrivals = arrivals_of(tmp_path, clock)
    paths = [put(tmp_path, ONE, 1), put(tmp_path, ONE, 2)]
    look(arrivals, clock)
    look(arrivals, clock)
    arrivals.start(arrivals.ready())
    put(tmp_path, ONE, 1, "another")
    look(arrivals, clock)
    look(arrivals, clock)
    assert arrivals.ready() == [ONE]
    arrivals.start([ONE])
    paths[0].unlink()
    look(arrivals, clock, 1000)
    assert arrivals.ready() == []


def test_a_folder_that_is_away_for_a_while_is_named_once(tmp_path, clock):
    folder = tmp_path / "raw"
    folder.mkdir()
    arrivals = arrivals_of(folder, clock)
    put(folder, ONE, 1)
    (folder / ".r1_uncal.asdf").write_text("hidden: a copy in progress")
    look(arrivals, clock)
    folder.rename(tmp_path / "away")
    assert look(arrivals, clock) == ([], [f"{folder}: can't be read (No such file or directory); trying again"])
    assert look(arrivals, clock) == ([], [])
    (tmp_path / "away").rename(folder)
    events, warnings = look(arrivals, clock)
    assert len(events) == 1 and warnings == []


def test_a_visit_that_no_run_could_begin_with_is_processed_once_more_and_holds_up_no_other(tmp_path, clock):
    arrivals = arrivals_of(tmp_path, clock, complete=1)
    put(tmp_path, ONE, 1)
    look(arrivals, clock)
    look(arrivals, clock)
    arrivals.start(arrivals.ready())
    arrivals.leave_out([ONE])
    assert arrivals.repeat([ONE]) == [ONE] and arrivals.ready() == [], "after the time-out"
    put(tmp_path, OTHER, 1)
    look(arrivals, clock)
    look(arrivals, clock)
    assert [product["name"] for product in arrivals.start(arrivals.ready())["products"]] == [OTHER]
    look(arrivals, clock, 100)
    assert arrivals.ready() == [ONE]
    assert [product["name"] for product in arrivals.start([ONE])["products"]] == [ONE, OTHER]
    arrivals.leave_out([ONE])
    assert arrivals.repeat([ONE]) == []
    look(arrivals, clock, 1000)
    assert arrivals.ready() == [], "once"
    # With a new file, it is a visit like others.
    put(tmp_path, ONE, 2)
    look(arrivals, clock)
    look(arrivals, clock)
    assert arrivals.ready() == [ONE]
    (product, _) = arrivals.start([ONE])["products"]
    assert len(product["members"]) == 2 and arrivals.repeat([ONE]) == [ONE]


def test_a_late_file_that_is_refused_leaves_the_visit_as_it_was(tmp_path, clock):
    arrivals = arrivals_of(tmp_path, clock, complete=1)
    first = put(tmp_path, ONE, 1)
    for number in (2, 3):
        look(arrivals, clock)
        look(arrivals, clock)
        arrivals.start(arrivals.ready())
        put(tmp_path, ONE, number)
    arrivals.leave_out([ONE])
    put(tmp_path, OTHER, 1)
    look(arrivals, clock)
    look(arrivals, clock)
    (product, _) = arrivals.start([OTHER])["products"]
    assert [member["expname"] for member in product["members"]] == [str(first)]


def test_visits_are_processed_once_more_one_by_one_when_the_folder_is_there(tmp_path, clock):
    folder = tmp_path / "raw"
    folder.mkdir()
    arrivals = arrivals_of(folder, clock, complete=1)
    put(folder, ONE, 1)
    put(folder, OTHER, 1)
    look(arrivals, clock)
    look(arrivals, clock)
    assert arrivals.ready() == [ONE, OTHER]
    arrivals.start([ONE, OTHER])
    assert arrivals.visits_of({f"{OTHER}_0001_wfi01_f158", "unknown"}) == [OTHER]
    arrivals.repeat([ONE, OTHER])
    folder.rename(tmp_path / "away")
    look(arrivals, clock, 1000)
    assert arrivals.ready() == []
    (tmp_path / "away").rename(folder)
    look(arrivals, clock)
    assert arrivals.ready() == [ONE]
    arrivals.start([ONE])
    assert arrivals.ready() == [OTHER]


def test_the_header_of_a_raw_file_decides(tmp_path, clock):
    arrivals = Arrivals(tmp_path, 1, 100.0, clock)
    whole = write_raw(tmp_path / f"{ONE}_0001_wfi01_f158_uncal.asdf", ramp(), {"instrument.detector": "WFI01"})
    content = whole.read_bytes()
    half = tmp_path / f"{ONE}_0002_wfi01_f158_uncal.asdf"
    half.write_bytes(content[: len(content) // 2])
    look(arrivals, clock)
    (event,), (warning,) = look(arrivals, clock)
    assert event.startswith(f"{ONE}_0001") and "(truncated)" in warning


# ---------------------------------------------------------------------------------------------------------- command line
def test_the_command_has_the_options_of_the_user_and_the_configuration_last(tmp_path):
    command = watch.command_for(["results=x"], ["report", "--cores", "2", "--until", "refpix"])(tmp_path / "a b.json")
    assert command[3:] == [
        *("--snakefile", str(watch.SNAKEFILE), "report", "--cores", "2", "--until", "refpix"),
        *("--config", f'input=["{tmp_path}/a b.json"]', "incoming=true", "results=x"),
    ]
    slurm = watch.command_for([], ["--workflow-profile", "slurm"])(tmp_path)  # as for `rampflow run`
    assert slurm[5:7] == ["--workflow-profile", str(watch.SNAKEFILE.parent / "profiles" / "slurm")]
    assert watch.working_folder(["--cores", "2"]) == watch.Path()
    assert watch.working_folder(["--directory=x", "--cores", "2"]) == watch.working_folder(["-d", "x"]) == watch.Path("x")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere", "--", "--cores", "1"], "nowhere: is not a folder"),
        (["."], "no options of snakemake are given; write at least the number of cores: -- --cores 8"),
        ([".", "--config", "input=x", "--", "--cores", "1"], "--config: input is set by this program"),
        ([".", "--config", "incoming=false", "--", "--cores", "1"], "--config: incoming is set by this program"),
        ([".", "--config", "report", "--", "--cores", "1"], "--config: 'report' is not KEY=VALUE"),
        ([".", "--", "--cores", "1", "--config", "results=x"], "--config is an option of this program: write it before --"),
        ([".", "--notify", "nothing://secret", "--", "--cores", "1"], "--notify: nothing:...: no address that apprise knows"),
    ],
)
def test_wrong_options_are_refused_before_the_watch(words, said, capsys):
    assert watch.main(words) == 1
    text = capsys.readouterr().err
    assert said in text and "secret" not in text and "Traceback" not in text


@pytest.mark.parametrize("words", [["--complete", "0"], ["--timeout", "-1"], ["--interval", "nan"], ["--interval", "soon"]])
def test_numbers_out_of_range_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        watch.main([".", *words, "--", "--cores", "1"])
    assert "is not a number of at least" in capsys.readouterr().err


def test_without_apprise_the_message_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apprise", None)
    assert watch.main([".", "--notify", "json://localhost", "--", "--cores", "1"]) == 1
    assert "which is not installed: pip install apprise; in a clone: make watch" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------------- messages
class Mail(socketserver.StreamRequestHandler):
    """A server of mails, which keeps what it gets."""

    def handle(self):
        def answer(text):
            self.wfile.write(f"{text}\r\n".encode())

        answer("220 test")
        while line := self.rfile.readline():
            word = line.split()[0].upper()
            if word == b"DATA":
                answer("354 go on")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.received.append(b"".join(lines).decode())
            answer("221 bye" if word == b"QUIT" else "250 fine")
            if word == b"QUIT":
                return


class Post(http.server.BaseHTTPRequestHandler):
    """A server that keeps what is posted to it, and refuses what is posted to /refused."""

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(json.loads(content))
        self.send_response(403 if self.path.startswith("/refused") else 200)
        self.end_headers()

    def log_message(self, *words):
        """Say nothing."""


@pytest.fixture
def servers():
    """A server of mails and one of posts: their ports and what they have received."""
    made = [socketserver.ThreadingTCPServer(("localhost", 0), Mail), http.server.ThreadingHTTPServer(("localhost", 0), Post)]
    for server in made:
        server.received, server.daemon_threads = [], True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [(server.server_address[1], server.received) for server in made]
    for server in made:
        server.shutdown()
        server.server_close()


TEXT = "rampflow: 1 failed, 17 of 18 exposures have their products\nfailed: r1 refpix: x [logs/r1/refpix.log]"


def test_a_summary_is_posted_by_mail_and_http(servers, tmp_path):
    (mail, mails), (web, posts) = servers
    (tmp_path / "addresses.txt").write_text(f"# where to\njson://user:secret@localhost:{web}/here\n")
    configure_logging()
    address = f"mailto://localhost:{mail}?from=me@example.org&to=you@example.org"
    watch.Messages([address, str(tmp_path / "addresses.txt")]).post("rampflow: r1: done", TEXT, success=True)
    (post,), (message,) = posts, mails
    assert (post["title"], post["message"], post["type"]) == ("rampflow: r1: done", TEXT, "success")
    assert "Subject: rampflow: r1: done" in message and "To: you@example.org" in message
    assert "17 of 18 exposures have their products" in message and "failed: r1 refpix: x" in message
    lines = recorded_log()
    assert len(lines) == 2 and all("the summary is posted" in line and "secret" not in line for line in lines)


def test_a_summary_that_cant_be_posted_is_a_warning(servers):
    _, (web, posts) = servers
    configure_logging()
    watch.Messages([f"json://localhost:{web}/refused", f"json://localhost:{web}/"]).post("t", TEXT, success=False)
    assert [post["type"] for post in posts] == ["failure", "failure"]
    warning, done = recorded_log()
    assert "WARNING" in warning and "the summary can't be posted; check the address and the server" in warning
    assert "the summary is posted" in done


# ------------------------------------------------------------------------------------------------------------------ runs
#: Stands for snakemake: writes a summary, or waits for a signal and says which.
PROGRAM = """
import pathlib, signal, sys, time
def note(number, frame):
    pathlib.Path("logs/summary.txt").write_text(f"rampflow: interrupted by {signal.Signals(number).name}\\n")
    sys.exit(3)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, note)
pathlib.Path("begun").touch()
if sys.argv[1] == "wait":
    time.sleep(60)
elif sys.argv[1] == "summary":
    pathlib.Path("logs/summary.txt").write_text("".join(f"line {n}\\n" for n in range(60)))
elif sys.argv[1] == "error":
    sys.exit("configuration: unknown key")
"""


def wait_until(test):
    deadline = time.monotonic() + 60
    while not test():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (
            'Building DAG of jobs...\nMissingInputException in rule tweakreg in file "catalogs.smk", line 70:\n'
            "Missing input files for rule tweakreg:\n    output: a.asdf\n    affected files:\n        b.parquet\n",
            "Missing input files for rule tweakreg:",
        ),
        (
            'WorkflowError in file "common.smk", line 5:\ninput: no exposure is given\n  File "common.smk", line 5, in <x>\n',
            "input: no exposure is given",
        ),
        (
            'InputFunctionException in rule survey in file "report.smk", line 2:\nError:\n  WorkflowError:\n    results: none\n'
            'Wildcards:\n\nTraceback:\n  File "common.smk", line 122, in need_results\n',
            "results: none",
        ),
        (
            "usage: snakemake [-h]\nsnakemake: error: unrecognized arguments: --bogus\n\n",
            "snakemake: error: unrecognized arguments: --bogus",
        ),
    ],
)
def test_the_reason_of_an_early_end_is_found_in_the_output(output, reason):
    assert watch.find_reason(output.splitlines()) == reason


@pytest.mark.parametrize(
    ("what", "first", "lines"),
    [
        ("summary", "line 0", 51),
        ("error", "Snakemake has ended before the first job: configuration: unknown key", 3),
        ("nothing", None, 0),
    ],
)
def test_a_run_is_reported_by_its_summary_or_its_output(tmp_path, monkeypatch, what, first, lines):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/summary.txt").write_text("of an earlier run\n")
    os.utime(tmp_path / "logs/summary.txt", (1e9, 1e9))
    (tmp_path / "program.py").write_text(PROGRAM)
    run = watch.Run([sys.executable, "program.py", what], tmp_path)
    run.process.wait()
    report = run.report().splitlines()
    assert len(report) == lines and (not lines or report[0] == first)
    if what == "summary":
        assert report[-1] == f"... and 10 more lines in {tmp_path / 'logs/summary.txt'}"
    if what == "error":
        assert report[-1] == "configuration: unknown key"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_and_the_watch(tmp_path, monkeypatch, servers, number):
    _, (web, posts) = servers
    monkeypatch.chdir(tmp_path)
    raw = tmp_path / "raw"
    raw.mkdir()
    put(raw, ONE, 1)
    configure_logging()
    arrivals = Arrivals(raw, 1, 100.0, read=read)
    messages = watch.Messages([f"json://localhost:{web}/"])
    watched = watch.Watch(arrivals, lambda association: [sys.executable, "-c", PROGRAM, "wait"], tmp_path, messages)

    def interrupt():
        wait_until((tmp_path / "begun").exists)
        watched.end(number)

    threading.Thread(target=interrupt).start()
    watched.watch(0.1)
    (post,) = posts
    assert post["title"] == f"rampflow: {ONE}: ended with status 3"
    assert post["message"] == f"rampflow: interrupted by {signal.Signals(number).name}"
    (product,) = json.loads((tmp_path / ".rampflow/arrived_asn.json").read_text())["products"]
    assert product["name"] == ONE
    lines = [line.partition("rampflow.watch :: ")[2] for line in recorded_log()]
    assert lines[:3] == [
        f"INFO :: {ONE}_0001_wfi01_f158: arrived, 1 of 1 of its visit",
        f"INFO :: {ONE}: complete, starts with 1 exposure",
        f"INFO :: {signal.Signals(number).name}: ending",
    ]
    assert lines[3].startswith(f"WARNING :: {ONE}: ended with status 3: rampflow: interrupted")


#: Stands for snakemake: ends before the first job, or leaves out an exposure that has arrived.
ABSENT = """
import pathlib, sys
association = pathlib.Path(sys.argv[2]).read_text()
if sys.argv[1] == "before" and "0001_" in association:
    sys.exit("WorkflowError:\\nSTEM: left out, it can't be read yet: raw: can't be opened\\nincoming: nothing to do")
if sys.argv[1] == "without":
    print("Warning: STEM: left out, it can't be read yet: raw: can't be opened")
pathlib.Path("logs/summary.txt").write_text("rampflow: nothing failed\\n")
"""


def watched_runs(tmp_path, monkeypatch, clock, how):
    """A watch whose runs can't read the first exposure of a visit, and its log."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    configure_logging()
    stem = f"{ONE}_0001_wfi01_f158"
    program = ABSENT.replace("STEM", stem)
    arrivals = arrivals_of(tmp_path / "raw", clock, complete=1)
    messages = watch.Messages([])
    watched = watch.Watch(arrivals, lambda path: [sys.executable, "-c", program, how, str(path)], tmp_path, messages)
    put(tmp_path / "raw", ONE, 1)
    return watched, lambda: [line.partition("rampflow.watch :: ")[2] for line in recorded_log()]


def let_run(watched, clock, seconds=10.0):
    """Look, and let the run end that this starts."""
    clock.now += seconds
    watched.look()
    if watched._run:
        watched._run.process.wait()


@pytest.mark.parametrize("how", ["before", "without"])
def test_exposures_that_have_arrived_and_that_a_run_could_not_read_are_processed_once_more(tmp_path, monkeypatch, clock, how):
    watched, lines = watched_runs(tmp_path, monkeypatch, clock, how)
    for _ in range(3):
        let_run(watched, clock)
    assert lines()[-1] == f"INFO :: {ONE}: is processed once more, 100 s later"
    before = len(lines())
    let_run(watched, clock, 50)
    assert len(lines()) == before
    for _ in range(5):
        let_run(watched, clock, 60)
    starts = [line for line in lines() if "starts with 1 exposure" in line]
    assert len(starts) == 2, "once more, and no further time"


def test_a_run_that_begins_is_not_repeated(tmp_path, monkeypatch, clock):
    watched, lines = watched_runs(tmp_path, monkeypatch, clock, "all")
    for _ in range(6):
        let_run(watched, clock, 200)
    assert sum("starts with 1 exposure" in line for line in lines()) == 1
    assert not [line for line in lines() if "once more" in line]


def test_a_run_that_cant_be_started_is_tried_again_after_each_time_out(tmp_path, monkeypatch, clock):
    watched, lines = watched_runs(tmp_path, monkeypatch, clock, "all")
    (tmp_path / "logs").write_text("in the way of the folder")
    for _ in range(4):
        let_run(watched, clock, 101)
    warnings = [line for line in lines() if line.startswith(f"WARNING :: {ONE}: the run can't be started (")]
    assert len(warnings) == 3
    (tmp_path / "logs").unlink()
    for _ in range(2):
        let_run(watched, clock, 101)
    assert lines()[-1] == f"INFO :: {ONE}: done: rampflow: nothing failed"
