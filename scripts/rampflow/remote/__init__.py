"""Files on S3 and on web servers: they are listed, read by ranges, and transferred."""
