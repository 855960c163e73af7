"""A plugin of SGLang for one test: lets torch_native attention run padded batches.

DP attention pads the batches of its ranks, and asks the attention backend what length a padded
request has. On a CPU only the AMX backend answers, which not every CPU has.
"""


def load() -> None:
    """Give the torch_native backend the answer of the others."""
    from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend

    TorchNativeAttnBackend.get_cpu_graph_seq_len_fill_value = lambda self: 1
