"""Pictures of exposures and associations, for previews and the report."""
