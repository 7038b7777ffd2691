"""Faults injected into unetseg, and the files that are left: ``make faults``."""
