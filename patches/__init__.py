"""Everything that touches SGLang, by the process in which it acts.

Each patch is a documented record; ``plugin.py`` applies them.
"""
