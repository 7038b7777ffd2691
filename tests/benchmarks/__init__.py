"""Benchmarks: both sides measured in one run, a table with their ratio."""
