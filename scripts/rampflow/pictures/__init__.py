"""Pictures of exposures and associations for the previews, and the pages of reports and surveys."""
