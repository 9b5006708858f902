"""World coordinate systems: built with gwcs, and evaluated from the tree of a file without objects of gwcs and astropy."""
