"""The formats that datasets come in, each read to arrays or to a catalog of files."""
