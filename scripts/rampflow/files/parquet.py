"""Parquet files, by pyarrow without pandas.

pyarrow imports pandas wherever it is installed, once, to know its types when it meets them; no step has any.
"""

import numpy as np

from rampflow.imports import without

with without("pandas"):
    import pyarrow
    from pyarrow.parquet import ParquetFile, write_table

    pyarrow.array(np.empty(1)).to_numpy()  # here it looks for pandas

__all__ = ["ParquetFile", "pyarrow", "read_table", "write_table"]


def read_table(path, columns: list[str] | None = None) -> pyarrow.Table:
    """Read a table, or some of its columns.

    Raises
    ------
    OSError, pyarrow.ArrowException
        There is no such file, or it is none of parquet's.
    """
    with ParquetFile(path) as file:
        return file.read(columns)
