"""The astrometric catalog of an association: stars in the part of the sky that its images cover, at their epoch.

`region` derives the sky region and the epochs from the images, `motion` moves stars to an epoch, `duplicates` merges stars
that are listed twice, `files`, `hats` and `web` read the sources of stars, `star_catalogs` chooses among them by name and
handles network failures, and `star_table` writes and reads the small file that the alignment takes.
"""

from rampflow.astrometry.star_catalogs import check_astrometric_catalog, source_files
from rampflow.astrometry.star_table import next_attempt, read_star_table

__all__ = ["check_astrometric_catalog", "next_attempt", "read_star_table", "source_files"]
