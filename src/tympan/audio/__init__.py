"""Audio: bytes of any format to samples and frames, and checks of the samples."""
