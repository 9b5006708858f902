"""Addresses of the network, and the variables of the environment that say how they are reached."""

from __future__ import annotations

import configparser
import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

SCHEMES = ("s3", "https", "http")
#: Environment variables of AWS: with one of them, requests are signed; otherwise the bucket must be public.
CREDENTIALS = (
    *("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
)
_KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")  #: of a profile
DEFAULT_REGION = "us-east-1"  #: of STScI's buckets


def is_remote(name: str) -> bool:
    """Test whether a name is an address of the network.

    Parameters
    ----------
    name : str
        Name of a file, a folder or a catalog.

    Returns
    -------
    bool
        Whether it begins with ``s3://``, ``https://`` or ``http://``.
    """
    return urlsplit(name).scheme in SCHEMES and "://" in name


def parent_of(address: str) -> str:
    """Name the folder of a file.

    Parameters
    ----------
    address : str
        Address of a file, or of a folder with a slash at its end.

    Returns
    -------
    str
        Address of the folder, with a slash at its end.
    """
    return f"{address.rpartition('/')[0]}/"


def name_of(address: str) -> str:
    """Extract the name of a file from its address.

    Parameters
    ----------
    address : str
        Address of a file.

    Returns
    -------
    str
        What follows the last slash.
    """
    return address.rpartition("/")[2]


def profile_keys(profile: str) -> dict[str, str]:
    """Read the keys of a profile from AWS's file of credentials.

    Parameters
    ----------
    profile : str
        Name of the profile.

    Returns
    -------
    dict of str to str
        ``access_key_id``, ``secret_access_key`` and ``session_token``, as far as the file has them.
    """
    path = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()
    content = configparser.ConfigParser(interpolation=None)
    content.read(path)
    found = content[profile] if content.has_section(profile) else {}
    return {name.removeprefix("aws_"): value for name, value in found.items() if name in _KEYS}


class S3Access(NamedTuple):
    """How a bucket is reached.

    Attributes
    ----------
    is_anonymous : bool
        Whether requests are not signed.
    region : str
        Its region.
    endpoint : str or None
        Address of the service, if it is not that of AWS.
    profile : str or None
        Section of AWS's configuration files with the credentials.
    """

    is_anonymous: bool
    region: str
    endpoint: str | None
    profile: str | None


def s3_access(bucket: str, *, public: bool = False) -> S3Access:
    """Find out how a bucket is reached, from the environment variables of AWS.

    Parameters
    ----------
    bucket : str
        Name of the bucket.
    public : bool
        Reach it without the user's credentials and region, as one of STScI.

    Returns
    -------
    S3Access
        How it is reached. Without AWS_REGION, AWS_DEFAULT_REGION and an endpoint, AWS is asked for the region.

    Raises
    ------
    OSError
        AWS does not answer.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = DEFAULT_REGION if public else os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None and not endpoint:
        from pyarrow import fs

        region = fs.resolve_s3_region(bucket)
    is_anonymous = public or not any(map(os.environ.get, CREDENTIALS))
    profile = None if is_anonymous or os.environ.get("AWS_ACCESS_KEY_ID") else os.environ.get("AWS_PROFILE")
    return S3Access(is_anonymous, region or DEFAULT_REGION, endpoint, profile)
