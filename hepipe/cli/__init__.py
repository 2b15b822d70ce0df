"""The command line: open, call, save."""
