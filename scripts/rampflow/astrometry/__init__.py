"""The astrometric catalog of an association: the part of the sky that it covers, the stars there, and where they are then.

`region` knows which part of the sky the images cover and when they were taken, `motion` moves stars to that epoch,
`duplicates` merges stars that are listed twice, `files`, `hats` and `web` read the sources of stars, `sources` chooses among
them by name and has patience with a network, and `table` writes and reads the small file that the alignment takes.
"""

from rampflow.astrometry.star_catalogs import check_astrometric_catalog, source_files
from rampflow.astrometry.star_table import next_attempt, read_star_table

__all__ = ["check_astrometric_catalog", "next_attempt", "read_star_table", "source_files"]
