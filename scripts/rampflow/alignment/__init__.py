"""How the exposures of an association are aligned to each other and to the sky, from their catalogs and WCSs alone."""
