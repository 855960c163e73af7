"""Everything that touches SGLang: one file per upstream target, each patch a documented record."""
