"""Progress over HTTP: the snapshot and the streams."""
