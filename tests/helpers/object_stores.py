"""Stand-ins on this machine for S3 (moto) and for a web server, which count requests and have faults on demand."""

import contextlib
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import boto3
from werkzeug.serving import make_server
from werkzeug.utils import send_from_directory
from werkzeug.wrappers import Request, Response

BUCKET = "raw"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


@dataclass
class Fault:
    """What is wrong with the answers to requests for the content of files.

    Attributes
    ----------
    status : int
        Status of the answer.
    after : int or None
        Bytes after which the connection ends.
    pause : float
        Seconds between two parts of the answer.
    times : int
        Number of answers with the fault.
    least : int
        Size of the answers that have it, bytes: requests for a header are smaller.
    """

    status: int = 0
    after: int | None = None
    pause: float = 0
    times: int = 1 << 30
    least: int = 0


@dataclass
class Requests:
    """An application of WSGI between the client and a server, which counts requests and makes faults."""

    application: object
    counts: Counter = field(default_factory=Counter)  # of requests, by method and name of the file
    active: int = 0  # answers with a body of more than a megabyte that are being sent
    most_active: int = 0
    faults: dict = field(default_factory=dict)  # by end of the path

    def __call__(self, environ, start_response):
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        is_listing = "list-type" in environ.get("QUERY_STRING", "")
        self.counts["LIST" if is_listing else f"{method} {path.rpartition('/')[2]}"] += 1
        self.counts["all"] += 1
        fault = next((fault for end, fault in self.faults.items() if path.endswith(end)), None)
        answer = Response.from_app(self.application, environ, buffered=True)
        size = answer.calculate_content_length() or 0
        if not fault or fault.times <= 0 or size < fault.least or method == "HEAD" and not fault.status:
            fault = Fault(times=1)
        fault.times -= 1
        if fault.status:
            return Response("<Error><Message>a fault of the test</Message></Error>", fault.status)(environ, start_response)
        if fault.after is None and not fault.pause:
            return self.tracked(answer, size, environ, start_response)
        content = answer.get_data()
        headers = [(name, value) for name, value in answer.headers.items() if name.lower() != "content-length"]
        start_response(answer.status, [*headers, ("Content-Length", str(len(content)))])
        return self.faulty(content, fault)

    def tracked(self, answer, size, environ, start_response):
        parts = answer(environ, start_response)
        if size < 1 << 18:
            yield from parts
            return
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            time.sleep(0.05)  # so that answers overlap
            yield from parts
        finally:
            self.active -= 1

    def faulty(self, content, fault):
        end = len(content) if fault.after is None else fault.after
        for start in range(0, end, 1 << 16):
            time.sleep(fault.pause)
            yield content[start : min(start + (1 << 16), end)]


@contextlib.contextmanager
def serving(application):
    """A server on a free port of this machine, with its address, whose requests are counted."""
    requests = Requests(application)
    server = make_server("127.0.0.1", 0, requests, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    requests.address = f"http://127.0.0.1:{server.port}"
    try:
        yield requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def s3_server():
    """S3 with an empty bucket, as `serving` yields it, with ``client`` (boto3) and ``environment`` in addition."""
    from moto.moto_api._internal import moto_api_backend
    from moto.server import DomainDispatcherApplication, create_backend_app

    moto_api_backend.reset()
    with serving(DomainDispatcherApplication(create_backend_app)) as requests:
        requests.environment = CREDENTIALS | {"AWS_ENDPOINT_URL": requests.address}
        requests.client = boto3.client(
            "s3",
            endpoint_url=requests.address,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )
        requests.client.create_bucket(Bucket=BUCKET)
        yield requests


def put(server, key, content):
    """Put a file into the bucket; return its address."""
    server.client.put_object(Bucket=BUCKET, Key=key, Body=content if isinstance(content, bytes) else content.read_bytes())
    return f"s3://{BUCKET}/{key}"


@contextlib.contextmanager
def web_server(folder, *, ranges=True, tags=True):
    """A web server of the files of a folder, as `serving` yields it, with or without range requests and ETags."""

    @Request.application
    def application(request):
        path = request.path.lstrip("/")
        if not (folder / path).is_file():
            return Response("not found", 404)
        environ = request.environ if ranges else {k: v for k, v in request.environ.items() if k != "HTTP_RANGE"}
        status = os.stat(folder / path)
        tag = f"{status.st_mtime_ns:x}-{status.st_size:x}" if tags else False
        return send_from_directory(folder, path, environ, etag=tag, mimetype="application/octet-stream")

    with serving(application) as requests:
        yield requests
