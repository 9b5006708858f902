"""Places of a HATS catalog: a folder, a bucket of S3, or a web server.

The bucket is read with pyarrow's own file system, whose parquet reader requests several parts of a table at the same time.
Raw exposures are read with obstore (`rampflow.remote`), which compares ETags and continues transfers, and whose files pyarrow
refuses (docs/development/in-place-of-libraries.md). Both take the credentials from `rampflow.remote.addresses`.
"""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rampflow.astrometry.web import Refused
from rampflow.remote.addresses import is_remote, s3_access

if TYPE_CHECKING:
    import pyarrow.fs
    import requests

_CONNECT_TIMEOUT = 10  # seconds


def open_store(source: str, deadline: float = float("inf"), *, public: bool = False) -> Store:
    """Open the place of a catalog.

    Parameters
    ----------
    source : str
        Folder, or address.
    deadline : float
        Latest time to wait for a web server, a time of `time.monotonic`.
    public : bool
        Read the bucket without the user's credentials and region, as one of STScI.

    Returns
    -------
    Store
        The place. The network is used later.
    """
    from pyarrow import fs

    if not is_remote(source):
        return ArrowStore(fs.LocalFileSystem(), str(Path(source).resolve()), source)
    scheme, bucket, prefix, *_ = urlsplit(source)
    if scheme != "s3":
        return WebStore(source, deadline)
    access = s3_access(bucket, public=public)
    filesystem = fs.S3FileSystem(
        anonymous=access.is_anonymous,
        region=access.region,
        endpoint_override=access.endpoint,
        connect_timeout=_CONNECT_TIMEOUT,
    )
    return ArrowStore(filesystem, f"{bucket}{prefix}".rstrip("/"), source)


class ArrowStore:
    """A folder of a file system of pyarrow.

    Parameters
    ----------
    filesystem : pyarrow.fs.FileSystem
        The file system.
    root : str
        Folder in it.
    address : str
        Name of the place for users.
    """

    def __init__(self, filesystem: pyarrow.fs.FileSystem, root: str, address: str):
        self.filesystem, self.root, self.address = filesystem, root, address.rstrip("/")

    def read(self, name: str) -> bytes:
        """Read a file.

        Parameters
        ----------
        name : str
            Name of the file.

        Returns
        -------
        bytes
            Its content.
        """
        with self.filesystem.open_input_stream(f"{self.root}/{name}", compression=None) as stream:
            return stream.read()

    def open(self, name: str) -> pyarrow.NativeFile:
        """Open a file for reading at any position.

        Parameters
        ----------
        name : str
            Name of the file.

        Returns
        -------
        pyarrow.NativeFile
            The file.
        """
        return self.filesystem.open_input_file(f"{self.root}/{name}")

    def stamp(self, name: str) -> str:
        """Describe the state of a file.

        Parameters
        ----------
        name : str
            Name of the file.

        Returns
        -------
        str
            Its size and time of modification.
        """
        info = self.filesystem.get_file_info(f"{self.root}/{name}")
        return f"{info.size} {info.mtime_ns}"

    def files_in(self, folder: str) -> list[str]:
        """List the files below a folder.

        Parameters
        ----------
        folder : str
            Name of the folder.

        Returns
        -------
        list of str
            Sorted names; empty if there is no such folder.
        """
        from pyarrow import fs

        selector = fs.FileSelector(f"{self.root}/{folder}", recursive=True, allow_not_found=True)
        found = self.filesystem.get_file_info(selector)
        names = [info.path.removeprefix(f"{self.root}/") for info in found if info.is_file]
        return sorted(name for name in names if not name.rpartition("/")[2].startswith((".", "_")))


class WebStore:
    """A folder of a web server, of which only parts of files are requested.

    Parameters
    ----------
    address : str
        Address of the folder.
    deadline : float
        Latest time to wait for an answer, a time of `time.monotonic`.
    """

    def __init__(self, address: str, deadline: float):
        self.address, self.deadline = address.rstrip("/"), deadline

    def request(self, name: str, method: str = "GET", **headers: str) -> requests.Response:
        """Ask the server.

        Parameters
        ----------
        name : str
            Name of a file.
        method : str
            Method of HTTP.
        **headers : str
            Headers of the request.

        Returns
        -------
        requests.Response
            The answer.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        Refused
            The server refuses the request.
        OSError
            The network or the server fails.
        """
        import requests

        left = max(self.deadline - time.monotonic(), 0.1)
        limits = (min(left, 30), None if left == float("inf") else left)
        answer = requests.request(method, f"{self.address}/{name}", headers=headers, timeout=limits, allow_redirects=True)
        if answer.status_code in (404, 410):
            raise FileNotFoundError(f"{self.address}/{name}: the server has no such file")
        if 400 <= answer.status_code < 500 and answer.status_code not in (408, 429):
            raise Refused(f"{self.address}/{name}: the server answered {answer.status_code} {answer.reason}")
        answer.raise_for_status()
        return answer

    def read(self, name: str) -> bytes:
        """Read a file.

        Parameters
        ----------
        name : str
            Name of the file.

        Returns
        -------
        bytes
            Its content.
        """
        return self.request(name).content

    def open(self, name: str) -> io.RawIOBase:
        """Open a file for reading at any position.

        Parameters
        ----------
        name : str
            Name of the file.

        Returns
        -------
        io.RawIOBase
            The file.
        """
        return _WebFile(self, name)

    def stamp(self, name: str) -> str:
        """Describe the state of a file.

        Parameters
        ----------
        name : str
            Name of the file.

        Returns
        -------
        str
            Its tag (ETag), time of modification and size; empty if the server gives neither tag nor time, as a size alone
            does not tell another content.
        """
        headers = self.request(name, "HEAD").headers
        known = "ETag" in headers or "Last-Modified" in headers
        return " ".join(headers.get(key, "") for key in ("ETag", "Last-Modified", "Content-Length")) if known else ""

    def files_in(self, folder: str) -> list[str]:
        """Refuse to list a folder.

        Parameters
        ----------
        folder : str
            Name of the folder.

        Returns
        -------
        list of str
            Never.

        Raises
        ------
        Refused
            Web servers don't list files in a defined way.
        """
        raise Refused(
            f"{self.address}/{folder}: the files of a folder can't be listed on a web server; give the catalog by s3:// or as "
            "a local folder"
        )


class _WebFile(io.RawIOBase):
    """A file of a web server, read by ranges; as a whole if the server doesn't give ranges."""

    def __init__(self, store: WebStore, name: str):
        self._store, self._name, self._position = store, name, 0
        length = store.request(name, "HEAD", **{"Accept-Encoding": "identity"}).headers.get("Content-Length")
        self._whole: bytes | None = None
        if length:
            self._size = int(length)
        else:
            self._whole = store.read(name)
            self._size = len(self._whole)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        stop = self._size if size is None or size < 0 else min(self._position + size, self._size)
        start, self._position = self._position, max(stop, self._position)
        if stop <= start:
            return b""
        if self._whole is None:
            answer = self._store.request(self._name, Range=f"bytes={start}-{stop - 1}")
            if answer.status_code == 206:
                if len(answer.content) != stop - start:
                    raise ConnectionError(f"{self._store.address}/{self._name}: the answer is truncated")
                return answer.content
            self._whole = answer.content
        return self._whole[start:stop]


Store = ArrowStore | WebStore  #: a place of files, whose names are relative to it
