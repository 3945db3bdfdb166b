"""`python -m customer_panel` is the command `customer-panel`."""

from customer_panel.cli.main import main

if __name__ == "__main__":
    main()
