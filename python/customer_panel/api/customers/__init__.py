"""Customers over HTTP: `routes` has the operations, `shapes` what they read and answer."""
