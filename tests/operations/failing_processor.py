"""A client's logit processor that raises in the scheduler."""

from sglang.srt.sampling.custom_logit_processor import CustomLogitProcessor

MESSAGE = "a logit processor of a client failed"


class Failing(CustomLogitProcessor):
    def __call__(self, logits, custom_param_list=None):
        raise RuntimeError(MESSAGE)
