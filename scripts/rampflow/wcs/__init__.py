"""WCSs evaluated from the tree of a file, without the objects of astropy and gwcs."""
