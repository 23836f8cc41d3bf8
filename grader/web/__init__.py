"""The front for a browser, on this machine alone: `kata web`."""
