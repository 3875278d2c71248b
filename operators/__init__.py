"""The operators opbench ships: one folder each; see CONTRIBUTING.md for how to add one."""
