"""Measurements, run by `make bench`. Never timed tests."""
