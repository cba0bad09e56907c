"""Ratios that hfclib promises, each measured in one run: see README.md beside this file."""
