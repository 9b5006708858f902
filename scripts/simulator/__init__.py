"""Simulator of raw exposures and of references: the sky, the optics, the detector and its metadata.

Its programs are `simulate_sky`, `simulate_references` and `simulate_exposure`.
"""
