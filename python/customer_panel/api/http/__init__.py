"""What every handler speaks: envelope, errors, bodies, parameters."""
