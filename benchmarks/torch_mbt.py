"""MBT in PyTorch's idiom, as a separate program for comparison: same weights, same answers.

Convolutions for patches, one matrix for queries, keys and values, and PyTorch's own fused
attention. It runs in any Python that has PyTorch; the package itself never imports it:

    python torch_mbt.py forward|step FILE.npz      # written by `beside_torch.write`

does the work once as a warm-up and prints "ready" with facts in JSON. Then, for every line on its
standard input, it does the work again and prints the seconds that took.
"""

import contextlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int, mlp_dim: int):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp_in, self.mlp_out = nn.Linear(width, mlp_dim), nn.Linear(mlp_dim, width)

    def forward(self, x):
        q, k, v = self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (q, k, v))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        y = F.gelu(self.mlp_in(self.mlp_norm(x)), approximate="tanh")
        return x + self.mlp_out(y)


class MBT(nn.Module):
    """Logits {stream: [B, C]} of a clip {stream: [B, 3, ...]}, by bottleneck fusion."""

    def __init__(self, config: dict):
        super().__init__()
        width, patches, positions = config["width"], config["patches"], config["positions"]
        self.streams, self.fusion_layer = list(patches), config["fusion_layer"]
        conv = {2: nn.Conv2d, 3: nn.Conv3d}
        self.embedding = nn.ModuleDict(
            {s: conv[len(p)](3, width, tuple(p), stride=tuple(p)) for s, p in patches.items()}
        )
        self.cls = nn.ParameterDict({s: torch.zeros(1, 1, width) for s in patches})
        self.positions = nn.ParameterDict({s: torch.zeros(1, positions[s], width) for s in patches})
        self.bottleneck = nn.Parameter(torch.zeros(1, config["bottlenecks"], width))
        sizes = width, config["heads"], config["mlp_dim"]
        self.blocks = nn.ModuleDict(
            {s: nn.ModuleList(Block(*sizes) for _ in range(config["depth"])) for s in patches}
        )
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, config["classes"])

    def embed(self, stream, x):
        x = self.embedding[stream](x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls[stream].expand(len(x), -1, -1), x], dim=1)
        return x + self.positions[stream]

    def forward(self, clip):
        tokens = {s: self.embed(s, clip[s]) for s in self.streams}
        bottleneck = self.bottleneck.expand(len(tokens[self.streams[0]]), -1, -1)
        for layer in range(len(self.blocks[self.streams[0]])):
            if layer < self.fusion_layer:
                tokens = {s: self.blocks[s][layer](x) for s, x in tokens.items()}
                continue
            both = {
                s: self.blocks[s][layer](torch.cat([x, bottleneck], dim=1))
                for s, x in tokens.items()
            }
            size = bottleneck.shape[1]
            tokens = {s: y[:, :-size] for s, y in both.items()}
            bottleneck = torch.stack([y[:, -size:] for y in both.values()]).mean(0)
        return {s: self.head(self.norm(x[:, 0])) for s, x in tokens.items()}


def loss_of(logits: dict, labels, smoothing: float):
    """Binary cross entropy summed over the classes, averaged over clips and streams."""
    target = labels * (1 - smoothing) + smoothing / labels.shape[1]
    per_stream = [
        F.binary_cross_entropy_with_logits(x, target, reduction="sum") / len(x)
        for x in logits.values()
    ]
    return sum(per_stream) / len(per_stream)


def forward(model, clip, labels, settings):
    """The work of a forward pass, and the logits of the warm-up."""
    model.eval()

    def work():
        with torch.inference_mode():
            return sum(model(clip).values()) / len(clip)

    return work, {"logits": work()[0].tolist()}


def step(model, clip, labels, settings):
    """The work of a train step: gradient, clipping as a whole, momentum; facts of the first one."""
    optimizer = torch.optim.SGD(model.parameters(), settings["learning_rate"], momentum=0.9)

    def work():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model(clip), labels, settings["label_smoothing"])
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), settings["clip_norm"])
        optimizer.step()
        return loss.item(), norm.item()

    loss, norm = work()
    return work, {"loss": loss, "gradient_norm": norm}


def main(kind: str, file: str) -> None:
    with contextlib.suppress(OSError):  # if memory runs out, kill this program and no other
        Path("/proc/self/oom_score_adj").write_text("1000")
    arrays = np.load(file, allow_pickle=False)
    config = json.loads(str(arrays["config"]))
    model = MBT(config)
    state = {n[6:]: torch.from_numpy(arrays[n]) for n in arrays.files if n.startswith("model.")}
    model.load_state_dict(state)
    clip = {s: torch.from_numpy(arrays[f"clip.{s}"]) for s in config["patches"]}
    labels = torch.from_numpy(arrays["labels"])
    work, facts = {"forward": forward, "step": step}[kind](model, clip, labels, config)
    print("ready", json.dumps(facts | {"torch": torch.__version__}), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        work()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
