"""The sections of the configuration, a file per room; light, since the Snakefile reads them."""
