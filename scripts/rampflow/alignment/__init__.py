"""Alignment of the exposures of an association to each other and to the sky, from their source catalogs and WCSs."""
