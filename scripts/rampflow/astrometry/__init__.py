"""The astrometric catalog of an association: the part of the sky that it covers, the stars there, and where they are then.

`region` knows which part of the sky the images cover and when they were taken, `motion` moves stars to that epoch, `files`,
`hats` and `web` read the sources of stars, `sources` chooses among them by name and has patience with a network, and `table`
writes and reads the small file that the alignment takes.
"""

from rampflow.astrometry.sources import check_astrometric_catalog
from rampflow.astrometry.table import read_catalog

__all__ = ["check_astrometric_catalog", "read_catalog"]
