"""Records to rows of ready strings to markdown, CSV and JSON; templates do no arithmetic."""
