"""Customers: kept, found and listed. What is allowed of them is judged before they come here."""
