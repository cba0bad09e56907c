"""The code of the book: what its pages show, its Sphinx extensions, and what checks the built pages."""
