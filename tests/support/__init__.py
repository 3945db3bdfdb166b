"""Helpers of the tests: servers, databases, clients, and what is compared."""
