"""Models and settings that SGLang loads in an engine's processes; see the modules.

Used through ``SGLANG_EXTERNAL_MODEL_PACKAGE=external_models``.
"""
