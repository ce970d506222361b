#!/usr/bin/env python3
"""Writes tiny random MiniMax checkpoints and what Hugging Face transformers computes from them.

    make_reference.py OUTPUT_FOLDER [CASE...]

needs PyTorch and transformers 5.17 and runs on the CPU in fp32. For each case of CASES it writes a folder

    config.json, *.safetensors   the checkpoint, as save_pretrained writes it
    reference.safetensors        inputs and results, see README.md

Weights follow from a seed. Of the seeds from 1 on the first is taken whose logits do not magnify small changes, whose
greedy tokens are well above the runner-up, whose routers choose clearly, and whose tokens do not run into a short loop:
so that another implementation's rounding stays small and cannot choose otherwise.
"""

import json
import platform
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import MiniMaxConfig, MiniMaxForCausalLM

PROMPT_TOKENS = 40
BATCH_TOKENS = (29, 13, 1)  # without the padding on the left
NEW_TOKENS = {"prompt": 32, "batch": 16}
SMALLEST_LOGIT_GAP = 0.02
SMALLEST_ROUTER_GAP = 1e-3
FEWEST_DIFFERENT_TOKENS = {"prompt": 12, "batch": 6}
LARGEST_MAGNIFICATION = 20

COMMON = dict(
    num_hidden_layers=4, head_dim=16, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=256,
    hidden_act="silu", bos_token_id=None, eos_token_id=None, pad_token_id=None, dtype="float32",
)
CASES = {
    # 16 tokens a block: three for the prompt. Weights as the modules name them, in one file.
    "eight-heads": dict(
        vocab_size=96, hidden_size=32, intermediate_size=24, num_attention_heads=8, num_key_value_heads=2,
        layer_types=["linear_attention", "full_attention", "linear_attention", "linear_attention"], block_size=16,
        rms_norm_eps=1e-3, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False, full_attn_alpha_factor=1.25, full_attn_beta_factor=0.8,
        linear_attn_alpha_factor=0.9, linear_attn_beta_factor=1.4, mlp_alpha_factor=0.75, mlp_beta_factor=1.6,
    ),
    # A head count that is no power of two, tied embeddings; weights as published checkpoints name them, in shards.
    "six-heads": dict(
        vocab_size=80, hidden_size=40, intermediate_size=16, num_attention_heads=6, num_key_value_heads=3,
        layer_types=["full_attention", "linear_attention", "full_attention", "linear_attention"], block_size=12,
        rms_norm_eps=3e-3, rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        tie_word_embeddings=True, full_attn_alpha_factor=0.85, full_attn_beta_factor=1.3,
        linear_attn_alpha_factor=1.15, linear_attn_beta_factor=0.7, mlp_alpha_factor=1.45, mlp_beta_factor=0.95,
    ),
}
GAIN = {"eight-heads": 1.0, "six-heads": 1.25}
SAVE = {
    "eight-heads": dict(save_original_format=False),
    "six-heads": dict(save_original_format=True, max_shard_size="160KB"),
}


def fill(model, seed, usual_gain):
    """Normal weights of variance gain^2 / fan-in: routers and the head are steeper, so that choices are clear."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if weight.dim() == 1:
            value = 1 + 0.25 * noise
        elif "embed_tokens" in name:
            value = noise
        else:
            gain = 4.0 if "lm_head" in name else 2.0 if ".gate." in name else usual_gain
            value = gain * noise / weight.shape[-1] ** 0.5
        weight.data.copy_(value)


class Recorder:
    """Outputs of the attention layers of the last pass, and the smallest gap between the logits of the last expert that
    a router chose and the first that it did not, in any pass; padding does not count."""

    def __init__(self, model):
        self.attention = {}
        self.router_gap = float("inf")
        self.mask = None
        for index, layer in enumerate(model.model.layers):
            layer.self_attn.register_forward_hook(self.on_attention(index))
            layer.mlp.gate.register_forward_hook(self.on_router(model.config.num_experts_per_tok))

    def on_attention(self, index):
        def hook(module, args, output):
            self.attention[index] = output[0].detach().clone()
        return hook

    def on_router(self, top_k):
        def hook(module, args, output):
            if self.mask is not None:
                hidden = args[0].reshape(-1, module.weight.shape[1])[self.mask.flatten() == 1]
                logits = (hidden @ module.weight.T).sort(dim=-1, descending=True).values
                self.router_gap = min(self.router_gap, (logits[:, top_k - 1] - logits[:, top_k]).min().item())
        return hook


def full_pass(model, recorder, ids, mask):
    """Logits without a cache; positions as generate() counts them, from the first token that is not padding."""
    recorder.mask = mask
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
    recorder.mask = None
    return logits


def magnification(model, recorder, ids, mask):
    """The largest relative change of a logit when the embeddings change by a relative 1e-5, over that; of 3 changes."""
    embedding = model.get_input_embeddings().weight
    before, generator, change, worst = embedding.data.clone(), torch.Generator().manual_seed(0), 1e-5, 0.0
    logits = full_pass(model, recorder, ids, mask)
    for _ in range(3):
        embedding.data.copy_(before * (1 + change * torch.randn(before.shape, generator=generator)))
        difference = (full_pass(model, recorder, ids, mask) - logits)[mask == 1]
        worst = max(worst, (difference.abs().max() / logits[mask == 1].abs().max()).item() / change)
    embedding.data.copy_(before)
    return worst


def greedy(model, recorder, ids, mask, count):
    """Tokens, each from a pass over the whole text; also the smallest gap to a runner-up."""
    gap = float("inf")
    start = ids.shape[1]
    for _ in range(count):
        best = full_pass(model, recorder, ids, mask)[:, -1].topk(2, dim=-1)
        gap = min(gap, (best.values[:, 0] - best.values[:, 1]).min().item())
        ids = torch.cat([ids, best.indices[:, :1]], dim=1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
    return ids[:, start:], gap


def cached_greedy(model, ids, mask, count):
    return model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=count, do_sample=False, use_cache=True,
        pad_token_id=0)[:, ids.shape[1]:]


def run(model, recorder, kind, ids, mask):
    """Tensors of one input, the smallest gap of its logits and their magnification; None if its choices are not clear.
    """
    logits = full_pass(model, recorder, ids, mask)
    tensors = {f"{kind}.input_ids": ids, f"{kind}.attention_mask": mask, f"{kind}.logits": logits}
    tensors |= {f"{kind}.attention.{index}": output for index, output in recorder.attention.items()}
    steepness = magnification(model, recorder, ids, mask)
    if recorder.router_gap < SMALLEST_ROUTER_GAP or steepness > LARGEST_MAGNIFICATION:
        return None
    tokens, gap = greedy(model, recorder, ids, mask, NEW_TOKENS[kind])
    tensors[f"{kind}.generated"] = tokens
    different = min(len(set(row.tolist())) for row in tokens)
    clear = (gap >= SMALLEST_LOGIT_GAP and recorder.router_gap >= SMALLEST_ROUTER_GAP
             and different >= FEWEST_DIFFERENT_TOKENS[kind])
    return (tensors, gap, steepness) if clear else None


def inputs(config, seed):
    generator = torch.Generator().manual_seed(1000 + seed)
    prompt = torch.randint(config.vocab_size, (1, PROMPT_TOKENS), generator=generator)
    longest = max(BATCH_TOKENS)
    batch = torch.randint(config.vocab_size, (len(BATCH_TOKENS), longest), generator=generator)
    mask = torch.zeros_like(batch)
    for row, tokens in enumerate(BATCH_TOKENS):
        mask[row, longest - tokens:] = 1
    return {"prompt": (prompt, torch.ones_like(prompt)), "batch": (batch, mask)}


@torch.no_grad()
def make(name, folder):
    config = MiniMaxConfig(**COMMON, **CASES[name])
    config._attn_implementation = "eager"
    if hasattr(config, "_experts_implementation"):
        config._experts_implementation = "eager"
    for seed in range(1, 1000):
        model = MiniMaxForCausalLM(config).eval()
        fill(model, seed, GAIN[name])
        recorder = Recorder(model)
        texts = inputs(config, seed)
        results = {}
        for kind, (ids, mask) in texts.items():
            result = run(model, recorder, kind, ids, mask)
            if result is None:
                break
            results[kind] = result
        if len(results) == len(texts):
            break
    else:
        raise SystemExit(f"{name}: no seed makes clear choices")
    tensors = {key: value for result, _, _ in results.values() for key, value in result.items()}
    gap = min(gap for _, gap, _ in results.values())
    steepness = max(steepness for _, _, steepness in results.values())
    cached = {
        kind: torch.equal(tensors[f"{kind}.generated"], cached_greedy(model, ids, mask, NEW_TOKENS[kind]))
        for kind, (ids, mask) in texts.items()}
    print(f"{name}: seed {seed}, smallest gap of logits {gap:.4f}, of routers' logits {recorder.router_gap:.2e}, "
          f"largest magnification {steepness:.1f}; "
          f"generate() with its cache gives the same tokens: {cached}")

    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, **SAVE[name])
    (folder / "generation_config.json").unlink(missing_ok=True)
    largest = tensors["prompt.logits"].abs().max().item()
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "reference.safetensors", metadata={
        "made_by": "tests/data/minimax/make_reference.py",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "device": "cpu",
        "seed": str(seed),
        "generated": "greedy, use_cache=False",
        "generate_with_cache_gives_the_same": json.dumps(cached),
        "smallest_logit_gap": f"{gap:.6f}",
        "smallest_router_gap": f"{recorder.router_gap:.3e}",
        "largest_magnification": f"{steepness:.1f}",
        "largest_logit": f"{largest:.4f}",
    })
    report(name, folder, model, tensors, largest)


def report(name, folder, model, tensors, largest):
    print(f"{name}: largest logit {largest:.3f}")
    for index, layer in enumerate(model.model.layers):
        if hasattr(layer.self_attn, "slope_rate"):
            print(f"  slope_rate of layer {index}: {layer.self_attn.slope_rate.flatten().tolist()}")
    for kind in ("prompt", "batch"):
        print(f"  {kind}: {tensors[f'{kind}.generated'].tolist()}")
    for file in sorted(folder.iterdir()):
        print(f"  {file.name}: {file.stat().st_size} bytes")


def main():
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    for name in sys.argv[2:] or CASES:
        make(name, out / name)


if __name__ == "__main__":
    main()
