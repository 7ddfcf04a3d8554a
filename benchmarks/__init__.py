"""Benchmarks: rates beside the limits of the machine, taken in the same run."""
