"""Faults injected into unetseg, and what is left of its files: ``make faults``."""
