"""How far a release of SGLang is from the source that the patches were reviewed against."""
