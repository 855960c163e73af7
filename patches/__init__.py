"""Everything that touches SGLang, by the process in which it acts.

One file per upstream target, each patch a documented record; ``plugin.py`` applies them.
"""
