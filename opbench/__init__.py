"""opbench: what does a spatial operator cost, and what would another one cost in its place?"""

__version__ = "0.1.0"
