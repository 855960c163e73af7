"""Trains the bundled model from scratch and writes it as a Hugging Face model directory.

Run: ``python scripts/bundled_model/train.py --out DIR``. The defaults are the shipped recipe;
``--steps 6 --batch-size 8 --problems 8`` is a smoke test. Two stages in one run: first thoughts
are text, then most of them are the model's own concept tokens (see `mixing`).

On a machine with other work to do, set ``OMP_WAIT_POLICY=passive``: threads that spin while they
wait for each other made it several times slower.
"""

import argparse
import time
from pathlib import Path

from soft_sglang.cpu.environment import prepare

prepare()  # transformers imports torchvision, which may not fit this PyTorch

import torch  # noqa: E402
from concepts import mixture  # noqa: E402
from conversations import batches  # noqa: E402
from mixing import mixed_inputs  # noqa: E402
from recipe import Recipe, generation_config, model_config  # noqa: E402
from tokenizer import build_tokenizer  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM  # noqa: E402


def train(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerFast,
    checkpoints: Path | None = None,
    log_every: int = 50,
    compiled: bool = False,
    init: Path | None = None,
    stop: int | None = None,
) -> Qwen3ForCausalLM:
    """Runs the whole recipe and returns the trained model, fp32, in evaluation mode.

    init: weights to start from instead of random ones. stop: end after so many steps, in the middle
    of the schedule.
    checkpoints: where to keep the weights of the run so far, to look at it while it lasts.
    compiled: compile the layers first (half a minute), which doubles the speed of a long run.
    """
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    model = Qwen3ForCausalLM(model_config(tokenizer))
    if init:
        model = Qwen3ForCausalLM.from_pretrained(init, dtype=torch.float32)
    model.set_attn_implementation("eager")  # much faster backwards than SDPA at these sizes
    if compiled:
        for layer in model.model.layers:
            layer.compile(dynamic=True)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": recipe.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=recipe.betas,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, recipe.rate)
    started, total = time.monotonic(), 0.0
    stream = batches(tokenizer, recipe.batch_size, recipe.seed, recipe.practice_share)
    for step, batch in zip(range(1, (stop or recipe.steps) + 1), stream, strict=False):
        embed = model.get_input_embeddings()
        if step <= recipe.text_steps:
            inputs = embed(batch.ids)
        else:
            inputs = mixture(*mixed_inputs(model, batch, generator, recipe.bf16), embed.weight)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            logits = model(inputs_embeds=inputs, use_cache=False).logits
        loss = cross_entropy(logits.float().flatten(0, 1), batch.labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if step % log_every == 0:
            seconds = time.monotonic() - started
            if checkpoints and step % (4 * log_every) == 0:
                model.save_pretrained(checkpoints)
            print(f"step {step:5d}  loss {total / log_every:.4f}  {seconds:6.0f} s", flush=True)
            total = 0.0
    return model.eval()


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Writes weights (fp32 safetensors), configurations, tokenizer and chat template."""
    model.set_attn_implementation("sdpa")
    model.generation_config = generation_config(tokenizer)
    model.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # it is written readable by its owner only
    tokenizer.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--stop", type=int, help="end after so many steps of the schedule")
    parser.add_argument("--text-share", type=float, default=Recipe.text_share)
    parser.add_argument("--practice-share", type=float, default=Recipe.practice_share)
    parser.add_argument("--learning-rate", type=float, default=Recipe.learning_rate)
    parser.add_argument("--batch-size", type=int, default=Recipe.batch_size)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="compile the layers: long runs")
    parser.add_argument("--init", type=Path, help="model directory to start from")
    parser.add_argument("--fp32", action="store_true", help="no bfloat16 autocast")
    parser.add_argument("--checkpoints", type=Path, help="directory for intermediate weights")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = build_tokenizer()
    recipe = Recipe(
        steps=args.steps,
        text_share=args.text_share,
        practice_share=args.practice_share,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        seed=args.seed,
        bf16=not args.fp32,
    )
    model = train(
        recipe,
        tokenizer,
        args.checkpoints,
        compiled=args.compile,
        init=args.init,
        stop=args.stop,
    )
    save(model, tokenizer, args.out)


if __name__ == "__main__":
    main()
