"""Which reference files an exposure needs, from CRDS (https://roman-crds.stsci.edu)."""

from __future__ import annotations

import contextlib
import datetime
import functools
import io
import logging
import os
import sys
from pathlib import Path

from rampflow.errors import RampflowError
from rampflow.files.atomic import replacing
from rampflow.step.declaration import NOT_APPLICABLE

OBSERVATORY = "roman"
SERVER = "https://roman-crds.stsci.edu"
SERVERLESS = "crds-serverless-mode"  #: in CRDS_SERVER_URL: a local cache and no server


#: What CRDS ends with when it can't answer: errors of many kinds, and for some of them an exit after an error message.
CRDS_FAILURES = (Exception, SystemExit)


@functools.cache
def _crds():
    """The crds package, set up for Roman."""
    os.environ.setdefault("CRDS_OBSERVATORY", OBSERVATORY)
    os.environ.setdefault("CRDS_SERVER_URL", SERVER)
    import crds

    return crds


#: What the choice of references and parameters depends on besides the context, and where they lie.
_ENVIRONMENT = (
    *("CRDS_PATH", "CRDS_SERVER_URL", "CRDS_CONTEXT", "CRDS_MODE", "CRDS_READONLY_CACHE", "CRDS_OBSERVATORY"),
    *("CRDS_S3_ENABLED", "CRDS_CONFIG_URI", "CRDS_MAPPING_URI", "CRDS_REFERENCE_URI"),
    *("CRDS_MAPPATH", "CRDS_REFPATH", "CRDS_CFGPATH", "CRDS_MAP_SUBDIR_MODE", "CRDS_REF_SUBDIR_MODE"),
    "STPIPE_DISABLE_CRDS_STEPPARS",
)


def source() -> dict[str, str]:
    """Return the cache and the server that are asked: environment variables of the `crds` package.

    Returns
    -------
    dict of str to str
        Value of each variable; empty if it is not set and has no default.
    """
    defaults = {"CRDS_OBSERVATORY": OBSERVATORY, "CRDS_SERVER_URL": SERVER, "CRDS_MODE": "auto"}  # crds sets the last itself
    # crds writes its defaults into the environment when it is imported: the same answer before and after.
    given = {name: os.environ.get(name, "") for name in _ENVIRONMENT}
    given = {name: "" if value.lower() in ("none", "false") else value for name, value in given.items()}
    return {name: value or defaults.get(name, "") for name, value in given.items()}


def _remedy() -> str:
    return (
        f"CRDS_PATH is {os.environ.get('CRDS_PATH', 'not set')!r}, CRDS_SERVER_URL {os.environ.get('CRDS_SERVER_URL')!r}; "
        "set them (and CRDS_CONTEXT or references.crds_context) to a cache or server that has it"
    )


@contextlib.contextmanager
def _in_one_line(failure: str):
    """Turn the messages and the traceback of a failing request to CRDS into one error, which begins with `failure`."""
    captured = io.StringIO()
    handlers = [h for h in logging.getLogger("CRDS").handlers if isinstance(h, logging.StreamHandler)]
    streams = [handler.setStream(captured) for handler in handlers]
    try:
        with contextlib.redirect_stderr(captured):
            yield
    except CRDS_FAILURES as error:
        errors = [line.partition("ERROR - ")[2] for line in captured.getvalue().splitlines() if "CRDS - ERROR - " in line]
        causes = [] if isinstance(error, SystemExit) else [str(error)]
        cause = error.__context__
        while cause:
            causes += [str(cause)] if isinstance(cause, OSError) else []
            cause = cause.__context__
        words = " ".join([*errors, *causes])
        raise RampflowError(f"{failure} ({' '.join(words.split())[:400] or 'no message'}). {_remedy()}") from None
    else:
        sys.stderr.write(captured.getvalue())
    finally:
        for handler, stream in zip(handlers, streams, strict=True):
            handler.setStream(stream)


def resolve_context(name: str | None) -> str:
    """Find the CRDS context of a name or date.

    Parameters
    ----------
    name : str or None
        Name or date. None: CRDS_CONTEXT, or the default of the server or cache.

    Returns
    -------
    str
        Name of the CRDS context.

    Raises
    ------
    RampflowError
        CRDS can't find the context.
    """
    _crds()
    from crds.core import heavy_client

    with _in_one_line(f"CRDS knows no context {name or 'by default'}"):
        return heavy_client.get_context_name(OBSERVATORY, name)


def recommendations(header: dict, types: list[str], context: str) -> dict[str, str]:
    """Ask CRDS for the reference that it recommends for each type.

    Parameters
    ----------
    header : dict
        Metadata of the exposure as ``roman.meta.instrument.detector`` and so on: text.
    types : list of str
        Reference types.
    context : str
        Name of the CRDS context.

    Returns
    -------
    dict
        Type to file name, to "N/A" where CRDS says that the exposure needs none, or to a text that begins with "NOT FOUND".

    Raises
    ------
    RampflowError
        The context can't be read.
    """
    crds = _crds()
    with _in_one_line(f"CRDS can't choose references with {context}"):
        found = crds.getrecommendations(header, reftypes=tuple(types), context=context, observatory=OBSERVATORY)
    result = {}
    for reftype in types:
        name = found.get(reftype) or found.get(reftype.upper()) or NOT_FOUND
        result[reftype] = NOT_APPLICABLE if name.upper() in ("N/A", f"{NOT_FOUND} N/A") else name
    return result


def is_found(recommendation: str) -> bool:
    """Test whether CRDS has an answer for a type: a file, or that none is needed.

    Parameters
    ----------
    recommendation : str
        Answer of `recommendations` for the type.

    Returns
    -------
    bool
        False if the context has no match.
    """
    return not recommendation.upper().startswith(NOT_FOUND)


def not_found_error(header: dict, reftype: str, recommendation: str, context: str) -> RampflowError:
    """Make the error for an exposure that CRDS has no reference for.

    Parameters
    ----------
    header : dict
        Metadata of the exposure, see `recommendations`.
    reftype : str
        Type of the reference.
    recommendation : str
        CRDS's answer.
    context : str
        Name of the CRDS context.

    Returns
    -------
    RampflowError
        The error, with the remedy.
    """
    wanted = ", ".join(f"{key.rpartition('.')[2]} {header[key]}" for key in MATCHED if key in header)
    return RampflowError(
        f"CRDS has no {reftype} reference in {context} for {wanted} ({recommendation}); "
        f"name one in references.override.{reftype} (N/A for none), or use another context"
    )


INSTRUMENT = {"roman.meta.instrument.name": "WFI"}  #: what CRDS needs to know for references that no exposure selects
NOT_FOUND = "NOT FOUND"  #: how CRDS's answer begins where a context has no match
MATCHED = (
    "roman.meta.instrument.detector",
    "roman.meta.instrument.optical_element",
    "roman.meta.exposure.type",
    "roman.meta.exposure.start_time",
    "roman.field",
)


def is_context_named(name: str | None) -> bool:
    """Test whether the user names a context, and does not only leave it to the default.

    Parameters
    ----------
    name : str or None
        Context of the configuration.

    Returns
    -------
    bool
        True if the configuration or CRDS_CONTEXT names one.
    """
    return bool(name or os.environ.get("CRDS_CONTEXT"))


def context_stamp(context: str) -> list[int]:
    """Read size and time of a context's file in the cache.

    A cache that was made anew may have another one of the same name.

    Parameters
    ----------
    context : str
        Name of the CRDS context.

    Returns
    -------
    list of int
        Size in bytes and time of modification in ns; empty if the file does not exist.
    """
    path = Path(_crds().locate_mapping(context, observatory=OBSERVATORY))
    return [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else []


def cache_path(name: str) -> Path:
    """Name the file of a reference or mapping in the CRDS cache, whether or not it exists.

    Parameters
    ----------
    name : str
        File name of the reference or mapping.

    Returns
    -------
    pathlib.Path
        Path in the cache.
    """
    return Path(_crds().locate_file(name, observatory=OBSERVATORY))


def mapping_names(context: str) -> list[str]:
    """List the mappings of a context.

    Parameters
    ----------
    context : str
        Name of the CRDS context.

    Returns
    -------
    list of str
        File names of the context and of all mappings that it names.

    Raises
    ------
    RampflowError
        A mapping can't be read.
    """
    crds = _crds()
    with _in_one_line(f"CRDS can't read {context}"):
        return sorted(crds.get_cached_mapping(context).mapping_names())


def serverless_info(context: str) -> dict:
    """Describe a cache without a server, as CRDS reads it from the file ``server_config`` of the cache.

    Parameters
    ----------
    context : str
        Name of the only CRDS context in the cache.

    Returns
    -------
    dict
        Content of the file.
    """
    contexts = dict.fromkeys(("operational_context", "default_context", "edit_context"), context)
    return contexts | {
        "observatory": OBSERVATORY,
        "bad_files": "",
        "bad_files_list": [],
        "force_remote_mode": False,
        "last_synced": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S"),
        "crds_version": {"str": _crds().__version__},
        "reference_url": {OBSERVATORY: "none"},
        "mapping_url": {OBSERVATORY: "none"},
    }


def is_serverless() -> bool:
    """Test whether CRDS works with a local cache alone.

    Returns
    -------
    bool
        True if there is no server.
    """
    _crds()
    return SERVERLESS in os.environ["CRDS_SERVER_URL"]


def fetch(name: str, context: str) -> Path:
    """Fetch a reference or mapping from the CRDS server, or where CRDS's variables say, into the cache and check it.

    It appears in the cache whole or not at all: others may share the cache.

    Parameters
    ----------
    name : str
        File name of the reference or mapping.
    context : str
        Name of the CRDS context.

    Returns
    -------
    pathlib.Path
        Path in the cache.

    Raises
    ------
    RampflowError
        The file can't be fetched.
    """
    _crds()
    from crds.client import api

    path = cache_path(name)
    try:
        if not path.is_file():
            with replacing(path, shared=True) as partial, _in_one_line(f"the reference {name} can't be fetched"):
                api.FileCacher(context).download_files([name], {name: str(partial)})
    except RampflowError:
        if not path.is_file():  # another run may have brought it meanwhile
            raise
    return path
