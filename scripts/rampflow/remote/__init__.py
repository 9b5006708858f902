"""Files on S3 and on web servers: they are listed, read by ranges, and transferred.

Star catalogs on S3 are read with pyarrow instead: see `rampflow.astrometry.stores`.
"""
