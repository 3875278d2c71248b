"""Clock, stop rule, memory and counters: each a pure core with a thin rim."""
