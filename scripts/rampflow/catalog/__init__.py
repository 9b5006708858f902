"""Source catalogs of calibrated images: detection, measurement, PSF fitting, and the two products."""
