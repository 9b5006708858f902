"""Products in the forms of other tools: FITS files, DS9 regions, notebooks."""
