"""Imports over HTTP: `routes` has the operations, `shapes` what they read and answer, `starting` how
an import is started exactly once.
"""
