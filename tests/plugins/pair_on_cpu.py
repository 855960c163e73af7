"""A plugin of SGLang for one test: lets a pair of servers transfer key-value pairs without a GPU.

SGLang tells NIXL that its pool lies on a GPU, and pins the host's memory with CUDA.
"""


def load() -> None:
    """Call the pool what it is here, and pin nothing."""
    from nixl._api import nixl_agent
    from sglang.srt.mem_cache.pool_host import common

    initialize = nixl_agent.__init__

    def without_gpu(agent, *args, **kwargs):
        initialize(agent, *args, **kwargs)
        agent.nixl_mems["VRAM"] = agent.nixl_mems["DRAM"]

    nixl_agent.__init__ = without_gpu
    common._cuda_host_register = lambda *args, **kwargs: None
