"""What every request passes before its handler: the protocol, the checks, the log, the metrics."""
