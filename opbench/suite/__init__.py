"""A YAML suite becomes cases: strict, with file, line and column in every fault."""
