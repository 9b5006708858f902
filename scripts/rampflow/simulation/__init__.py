"""What the simulator knows of the sky, the optics and the detector."""
