"""Pictures of exposures and associations, for the previews and the report."""
