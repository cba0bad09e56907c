"""The companion to the paper: one module or folder per chapter of the book."""
