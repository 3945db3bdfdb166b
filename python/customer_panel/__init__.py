"""Customer Panel: a customer CSV into PostgreSQL, exactly once."""

from __future__ import annotations

__version__ = "0.1.0"
