"""Files on S3 and web servers: found, listed, and read by ranges, with obstore (https://developmentseed.org/obstore)."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from rampflow.remote.addresses import S3Access, name_of, parent_of, profile_keys
from rampflow.remote.errors import RemoteChanged, RemoteError, access_to, named_errors

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, ObjectMeta
    from obstore.store import ClientConfig, HTTPStore, RetryConfig, S3Store

REQUESTS = 32  #: that are made at the same time
_HEAD = 1 << 17  #: bytes that the first request asks for: the tree of a raw exposure, and the header of its first block
_LEAST = 1 << 12  #: bytes that a later request asks for at least
_WORTH_LISTING = 3  #: files in a folder that are found by listing it, with one request instead of one each
#: A request without an answer or with an answer of a server in trouble (5xx, 429) is repeated for two minutes.
RETRIES: RetryConfig = {
    "max_retries": 7,
    "retry_timeout": timedelta(seconds=120),
    "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=15), "base": 2},
}
#: A transfer may take a day, but not stand still for a minute.
_CLIENT: ClientConfig = {
    "allow_http": True,
    "connect_timeout": timedelta(seconds=10),
    "read_timeout": timedelta(seconds=60),
    "timeout": timedelta(days=1),
}


class RemoteFile(NamedTuple):
    """A file of the network, as it was found.

    Attributes
    ----------
    address : str
        Its address.
    size : int
        Bytes.
    version : str
        What changes with its content: its ETag, or else its time of modification.
    """

    address: str
    size: int
    version: str

    @property
    def name(self) -> str:
        """Name of the file.

        Returns
        -------
        str
            What follows the last slash of its address.
        """
        return name_of(self.address)

    @property
    def content(self) -> str:
        """Identify what the file holds.

        Returns
        -------
        str
            Sixteen hexadecimal digits. A copy with the same ETag has the same; without an ETag, the address counts, too.
        """
        place = "" if self.e_tag else self.address
        return hashlib.sha256(f"{self.size}\0{self.version}\0{place}".encode()).hexdigest()[:16]

    @property
    def e_tag(self) -> str | None:
        """ETag of the file, as it is compared in a request.

        Returns
        -------
        str or None
            None where the server gives none.
        """
        return self.version if self.version.endswith('"') else None


def open_store(address: str) -> tuple[S3Store | HTTPStore, str]:
    """Open the place of a file or folder. All files of a bucket, or of a folder of a web server, share its connections.

    Parameters
    ----------
    address : str
        Address of the file or folder.

    Returns
    -------
    store : obstore.store.S3Store or obstore.store.HTTPStore
        The bucket, or the folder of a web server.
    key : str
        Name of the file or folder in it.

    Raises
    ------
    RemoteError
        The address can't be used, or there are no credentials of the profile AWS_PROFILE.
    """
    scheme, place, path, query, fragment = urlsplit(address)
    if query or fragment or not place:
        raise RemoteError(f"{address}: is no address of a file; it takes s3://BUCKET/KEY or https://SERVER/PATH")
    if scheme == "s3":
        return _open_bucket(place, access_to(place)), path.lstrip("/")
    return _open_folder(parent_of(address)), name_of(address)


@functools.cache
def _open_bucket(bucket: str, access: S3Access) -> S3Store:
    from obstore.store import S3Store

    credentials: dict = {"skip_signature": True} if access.is_anonymous else {}
    if access.profile:
        keys = profile_keys(access.profile)
        if "access_key_id" not in keys:
            raise RemoteError(
                f"s3://{bucket}: the profile {access.profile} (AWS_PROFILE) has no key in AWS's file of credentials; set the "
                f"variables that `aws configure export-credentials --profile {access.profile} --format env` shows"
            )
        credentials = keys
    if access.endpoint:
        credentials |= {"endpoint": access.endpoint, "virtual_hosted_style_request": False}
    return S3Store(bucket, region=access.region, client_options=_CLIENT, retry_config=RETRIES, **credentials)


@functools.cache
def _open_folder(address: str) -> HTTPStore:
    from obstore.store import HTTPStore

    return HTTPStore.from_url(address, client_options=_CLIENT, retry_config=RETRIES)


def list_folder(address: str) -> list[RemoteFile]:
    """List the files of a folder, without those of the folders in it.

    Parameters
    ----------
    address : str
        Address of the folder, on S3.

    Returns
    -------
    list of RemoteFile
        The files, sorted by their names; empty where there is no such folder.

    Raises
    ------
    RemoteError
        The folder can't be listed.
    """
    import obstore

    if urlsplit(address).scheme != "s3":
        raise RemoteError(
            f"{address}: the files of a folder can't be listed on a web server; name them, or an association file"
        )
    folder = f"{address.rstrip('/')}/"
    with named_errors(folder):
        store, prefix = open_store(folder)
        found = obstore.list_with_delimiter(store, prefix.rstrip("/") or None)["objects"]
    return sorted(_remote_file(f"{folder}{name_of(item['path'])}", item) for item in found)


def find_files(addresses: Iterable[str]) -> dict[str, RemoteFile | RemoteError]:
    """Ask for the state of files, of many at once.

    Parameters
    ----------
    addresses : iterable of str
        Addresses of the files.

    Returns
    -------
    dict
        For each address the file, or why it can't be read.
    """
    names = list(addresses)
    found: dict[str, RemoteFile | RemoteError] = {}
    for folder in {parent_of(name) for name in names if urlsplit(name).scheme == "s3"}:
        found |= _find_in_folder(folder, {name for name in names if parent_of(name) == folder})
    rest = [name for name in names if name not in found]
    with ThreadPoolExecutor(REQUESTS) as pool:
        found |= zip(rest, pool.map(_find_or_error, rest), strict=True)
    return {name: found[name] for name in names}


def _find_in_folder(folder: str, addresses: set[str]) -> dict[str, RemoteFile]:
    """Those files of a folder that the listing has from the first of their names on, as far as it is worth it.

    The exposures of a visit follow each other in a listing, of which one request gives a thousand files.
    """
    import obstore

    found: dict[str, RemoteFile] = {}
    if len(addresses) < _WORTH_LISTING:
        return found
    with contextlib.suppress(RemoteError), named_errors(folder):  # a bucket may be read, and not listed
        store, prefix = open_store(folder)
        before = f"{prefix}{name_of(min(addresses))}"[:-1]
        for number, items in enumerate(obstore.list(store, prefix.rstrip("/") or None, offset=before, chunk_size=1000)):
            listed = {f"{folder}{item['path'].removeprefix(prefix)}": item for item in items}
            found |= {name: _remote_file(name, item) for name, item in listed.items() if name in addresses}
            if len(found) == len(addresses) or max(listed) > max(addresses) or 1000 * number > 100 * len(addresses):
                break
    return found


def _find_or_error(address: str) -> RemoteFile | RemoteError:
    try:
        return find_file(address)
    except RemoteError as error:
        return error


def find_file(address: str) -> RemoteFile:
    """Ask for the state of a file.

    Parameters
    ----------
    address : str
        Its address.

    Returns
    -------
    RemoteFile
        The file with its size and its version. The version is the ETag that the server gives, or the time of the last change
        if it gives none.

    Raises
    ------
    RemoteError
        It does not exist, or can't be read.
    """
    import obstore

    with named_errors(address):
        store, key = open_store(address)
        return _remote_file(address, obstore.head(store, key))


def _remote_file(address: str, state: ObjectMeta) -> RemoteFile:
    """What a server says of a file."""
    return RemoteFile(address, state["size"], state["e_tag"] or f"modified {state['last_modified'].isoformat()}")


def read_file(address: str) -> bytes:
    """Read a small file.

    Parameters
    ----------
    address : str
        Its address.

    Returns
    -------
    bytes
        Its content.

    Raises
    ------
    RemoteError
        It does not exist, or can't be read.
    """
    import obstore

    with named_errors(address):
        store, key = open_store(address)
        return bytes(obstore.get(store, key).bytes())


def request(file: RemoteFile, start: int, stop: int | None = None) -> GetResult:
    """Request a part of a file, which must be the one that was found.

    Parameters
    ----------
    file : RemoteFile
        The file.
    start : int
        Place of the first byte.
    stop : int, optional
        Place after the last byte; by default all that follow are requested.

    Returns
    -------
    obstore.GetResult
        The answer, whose bytes follow. Within `named_errors`.

    Raises
    ------
    RemoteChanged
        The file has changed.
    """
    import obstore

    store, key = open_store(file.address)
    # A weak tag (W/) is never equal to another by the rules of HTTP.
    options: GetOptions = {"if_match": file.e_tag} if file.e_tag and file.e_tag.startswith('"') else {}
    if stop is not None:
        options["range"] = (start, stop)
    elif start:
        options["range"] = {"offset": start}
    answer = obstore.get(store, key, options=options)
    found = _remote_file(file.address, answer.meta)
    if found != file:
        raise RemoteChanged(
            f"{file.address}: has changed since the run began ({found.size} bytes, {found.version}; it was {file.size} bytes, "
            f"{file.version}); start again to process the new file"
        )
    return answer


class RemoteReader:
    """The bytes of a file of the network, of which only what is needed is requested: a source of `AsdfFile`.

    Parameters
    ----------
    file : RemoteFile
        The file.

    Attributes
    ----------
    size : int
        Bytes of the file.
    """

    def __init__(self, file: RemoteFile):
        self.file, self.size = file, file.size
        self._start, self._part = 0, b""

    def read(self, size: int, offset: int) -> bytes:
        """Read a part.

        Parameters
        ----------
        size : int
            Number of bytes.
        offset : int
            Place of the first of them.

        Returns
        -------
        bytes
            The part; shorter where the file ends.

        Raises
        ------
        RemoteError
            The file can't be read, or has changed.
        """
        stop = min(offset + size, self.size)
        if stop <= offset:
            return b""
        if not (self._start <= offset and stop <= self._start + len(self._part)):
            least = _LEAST if offset else _HEAD
            with named_errors(self.file.address):
                part = bytes(request(self.file, offset, min(max(stop, offset + least), self.size)).bytes())
            if len(part) < stop - offset:
                raise RemoteError(f"{self.file.address}: the server has sent a part of what was requested; start again")
            self._start, self._part = offset, part
        return self._part[offset - self._start : stop - self._start]
