"""The engine that these tests share."""

FEATURES = {
    "reasoning_parser": "deepseek-r1",
    "constrained_json_disable_any_whitespace": True,
    "enable_custom_logit_processor": True,
    "enable_priority_scheduling": True,
    "enable_streaming_session": True,
    "max_running_requests": 8,
}
"""Its arguments: everything that a field of a request may need."""

UNCOMPILED = {"TORCHDYNAMO_DISABLE": "1"}
"""Its environment. SGLang compiles the repetition penalty at its first use, which takes longer than
the tests."""
