"""Customers: stored, found and listed. Their values are validated by the caller."""
