"""Running stock SGLang on a machine without an accelerator."""
