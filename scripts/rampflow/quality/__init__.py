"""Quality of exposures: the numbers of each, the table of a results folder, and exposures unlike the others."""
