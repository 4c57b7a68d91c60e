"""The commands of the command line that are more than one call, one module each; `cli` puts them together."""
