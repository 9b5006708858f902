"""Errors of S3 and web servers, as users read them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from rampflow.errors import RampflowError, one_line
from rampflow.remote.addresses import S3Access, s3_access


class RemoteError(RampflowError):
    """A file or folder of the network can't be read."""


class RemoteRefused(RemoteError):
    """The server refuses the request: to ask again does not help."""


class RemoteWithoutParts(RemoteError):
    """The server gives whole files only."""


class RemoteMissing(RemoteRefused):
    """There is no such file."""


class RemoteChanged(RemoteRefused):
    """The file is not the one that was listed."""


@contextlib.contextmanager
def named_errors(address: str) -> Iterator[None]:
    """Turn an error of obstore in the block into one that names the address and the remedy.

    Parameters
    ----------
    address : str
        What is read or written in the block.

    Raises
    ------
    RemoteRefused
        There is no such file, it is not the one that was listed, or it may not be read.
    RemoteError
        The server fails, or can't be reached.
    """
    from obstore import exceptions

    try:
        yield
    except FileNotFoundError:
        raise RemoteMissing(f"{address}: does not exist; check the address") from None
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise RemoteRefused(f"{address}: the server refuses it ({_reason(error)}); {_remedy(address)}") from None
    except exceptions.PreconditionError:
        raise RemoteChanged(f"{address}: has changed since the run began; start again to process the new file") from None
    except exceptions.NotSupportedError:
        raise RemoteWithoutParts(
            f"{address}: the server gives no parts of files (range requests); fetch the file, and name it on the disk"
        ) from None
    except exceptions.BaseError as error:
        missing = "NoSuchBucket" in str(error)
        remedy = "check the address" if missing else "check the network and the server, and start again"
        raise (RemoteMissing if missing else RemoteError)(f"{address}: can't be reached ({_reason(error)}); {remedy}") from None


def _reason(error: Exception) -> str:
    """What a server or the network says, in an error of obstore."""
    text = str(error).partition("\n\nDebug source")[0]
    status = re.search(r"status code: (\d{3}[ \w]*)", text)
    message = re.search(r"<Message>([^<]*)</Message>", text)
    if status:
        return ": ".join([status[1].strip(), *([message[1].strip()] if message else [])])
    return one_line(Exception(text.rpartition(" - ")[2] or text))


def _remedy(address: str) -> str:
    """What to do about a refused address."""
    scheme, place, *_ = urlsplit(address)
    if scheme != "s3":
        return "it must be readable without a password"
    if access_to(place).is_anonymous:
        return "the request had no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    return "check that the credentials of the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE) may read it"


def access_to(bucket: str) -> S3Access:
    """Find out how a bucket is reached.

    Parameters
    ----------
    bucket : str
        Name of the bucket.

    Returns
    -------
    rampflow.remote.addresses.S3Access
        How it is reached.

    Raises
    ------
    RemoteError
        Its region is unknown.
    """
    try:
        return s3_access(bucket)
    except OSError as error:
        raise RemoteError(
            f"s3://{bucket}: its region is unknown ({one_line(error)}); check the name and the network, or set AWS_REGION"
        ) from None
