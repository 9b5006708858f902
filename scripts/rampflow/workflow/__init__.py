"""What the workflow knows before its first job, and what it says after the last: no step imports this package."""
