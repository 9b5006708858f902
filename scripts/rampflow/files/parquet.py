"""Parquet files, by pyarrow without pandas.

pyarrow imports pandas wherever it is installed, once, to know its types when it meets them; no step has any.
"""

import os

import numpy as np

from rampflow.imports import without

with without("pandas"):
    import pyarrow
    from pyarrow.parquet import ParquetFile, write_table

    pyarrow.array(np.empty(1)).to_numpy()  # here it looks for pandas

__all__ = ["ParquetFile", "pyarrow", "read_table", "write_table"]


def read_table(path: str | os.PathLike, columns: list[str] | None = None) -> pyarrow.Table:
    """Read a table.

    Parameters
    ----------
    path : path-like
        The file.
    columns : list of str, optional
        Names of the columns to read; by default all.

    Returns
    -------
    pyarrow.Table
        The table.

    Raises
    ------
    OSError, pyarrow.ArrowException
        There is no such file, or it is not a parquet file.
    """
    with ParquetFile(path) as file:
        return file.read(columns)
