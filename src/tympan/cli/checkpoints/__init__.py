"""Commands for the files of a model: download and verification."""
