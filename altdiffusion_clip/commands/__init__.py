"""One module per command of the command line. Heavy libraries are imported when a command runs, not before."""
