"""A plugin of SGLang for one test: lets its CPU graph runner compile around torch_native attention.

On a CPU SGLang compiles decode steps only with its AMX attention, which not every CPU has. What the
runner asks of an attention backend is little: the attention itself stays outside of the graph.
"""

import torch


def load() -> None:
    """Give the torch_native backend what the runner calls."""
    from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend
    from sglang.srt.model_executor import cpu_graph_runner

    # shapes of operators that only sgl_kernel has, and that this model does not call
    cpu_graph_runner.register_fake_ops = lambda tp_size: None

    class Compilable:
        def init_cpu_graph_state(self, max_bs, max_num_tokens):
            pass

        def get_cpu_graph_seq_len_fill_value(self):
            return 1

        def init_forward_metadata_capture_cpu_graph(self, *args, **kwargs):
            pass

    for name, function in vars(Compilable).items():
        if callable(function):
            setattr(TorchNativeAttnBackend, name, function)
    outside = torch._dynamo.disable(TorchNativeAttnBackend.forward_decode)
    TorchNativeAttnBackend.forward_decode = outside
