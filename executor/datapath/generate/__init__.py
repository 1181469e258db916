"""Generators of the files that follow from tables in the executor; `python -m datapath.generate` runs all.

Part of the checkout only: nothing here travels to nodes.
"""
