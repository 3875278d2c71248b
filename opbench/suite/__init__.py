"""A YAML suite becomes cases: strict, with file, line and column in every fault."""

from opbench.suite.load import Suite, load
from opbench.suite.plan import Planned
from opbench.suite.schema import schema

__all__ = ["Planned", "Suite", "load", "schema"]
