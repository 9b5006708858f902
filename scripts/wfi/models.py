"""Whole data models, by roman_datamodels: what enters and leaves the pipeline is checked against their schemas."""

import warnings


def open_model(path):
    """Open a file of this pipeline as a data model, without a check of what it holds.

    What writes a file, or makes products of it, checks it: to do so twice takes a third of a second.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    roman_datamodels.datamodels.DataModel
        Also a context manager, which closes the file.
    """
    import asdf
    from roman_datamodels import datamodels

    # A file still has the name that it is written under; its metadata has the final one.
    warnings.simplefilter("ignore", datamodels.FilenameMismatchWarning)
    with asdf.config_context() as config:
        config.validate_on_read = False
        return datamodels.open(path)
