"""Customer Panel: imports a customer CSV into PostgreSQL, exactly once.

    from customer_panel import import_customers
    result = import_customers("customers.csv", "postgresql://...")

`iter_batches` gives the parsed rows to a sink of your own. All errors are CustomerPanelError.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from customer_panel import errors
    from customer_panel.errors import CustomerPanelError
    from customer_panel.imports import (
        Counts,
        ImportResult,
        ParsedBatch,
        Progress,
        Reject,
        Stop,
        import_customers,
        iter_batches,
    )
    from customer_panel.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "Counts",
    "CustomerPanelError",
    "ImportResult",
    "ParsedBatch",
    "Progress",
    "Reject",
    "Settings",
    "Stop",
    "__version__",
    "errors",
    "import_customers",
    "iter_batches",
]

_PLACES = {"CustomerPanelError": "errors", "Settings": "settings"}


def __getattr__(name: str) -> Any:
    # Loaded at first use: a command that only shows its help must not load driver and extension.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "errors":
        return importlib.import_module("customer_panel.errors")
    module = importlib.import_module(f"customer_panel.{_PLACES.get(name, 'imports')}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
