"""Trains the built-in hippocampus model: a 2.5-D U-Net that labels anterior (1) and posterior (2) hippocampus.

    python train.py --data FOLDER/msd-hippocampus-train --out RUN --seconds 600

Needs torch and nibabel (README.md names the versions). Every volume is brought to RAS order and z-scored; the network sees
three neighbouring coronal-free axial slices (k-1, k, k+1) padded to 48 x 64 and labels the middle one.
"""

import argparse
import json
import random
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

PAD = (48, 64)
CLASSES = 3


class Block(nn.Module):
    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.InstanceNorm2d(outside, affine=True), nn.LeakyReLU(0.01),
            nn.Conv2d(outside, outside, 3, padding=1, bias=False), nn.InstanceNorm2d(outside, affine=True), nn.LeakyReLU(0.01),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class UNet(nn.Module):
    def __init__(self, inside: int = 3, classes: int = CLASSES, base: int = 16, levels: int = 4) -> None:
        super().__init__()
        widths = [base * 2**n for n in range(levels)]
        self.down = nn.ModuleList(Block(inside if n == 0 else widths[n - 1], widths[n]) for n in range(levels))
        self.up = nn.ModuleList(Block(widths[n] + widths[n + 1], widths[n]) for n in reversed(range(levels - 1)))
        self.head = nn.Conv2d(base, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for n, block in enumerate(self.down):
            x = block(x if n == 0 else F.max_pool2d(x, 2))
            kept.append(x)
        for n, block in enumerate(self.up):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = block(torch.cat([x, kept[len(self.down) - 2 - n]], 1))
        return self.head(x)


def load_case(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    image = nib.as_closest_canonical(nib.load(folder / "images" / name))
    label = nib.as_closest_canonical(nib.load(folder / "labels" / name))
    values = np.asarray(image.dataobj, np.float32)
    values = (values - values.mean()) / (values.std() + 1e-6)
    return values, np.asarray(label.dataobj).astype(np.uint8)  # (i, j, k) in RAS+


def pad_slice(plane: np.ndarray) -> np.ndarray:
    height, width = plane.shape[-2:]
    top, left = (PAD[0] - height) // 2, (PAD[1] - width) // 2
    out = np.zeros((*plane.shape[:-2], *PAD), plane.dtype)
    out[..., max(0, top) : max(0, top) + height, max(0, left) : max(0, left) + width] = plane[..., : PAD[0], : PAD[1]]
    return out


def stack(values: np.ndarray) -> np.ndarray:
    """(i, j, k) -> (k, 3, 48, 64)"""
    padded = np.pad(values, ((0, 0), (0, 0), (1, 1)), mode="edge")
    return np.stack([pad_slice(np.moveaxis(padded[:, :, k : k + 3], 2, 0)) for k in range(values.shape[2])])


def split(folder: Path) -> tuple[list[str], list[str]]:
    names = sorted(p.name for p in (folder / "images").glob("hippocampus_*.nii.gz"))
    random.Random(7).shuffle(names)
    return names[:200], names[200:230]


def augment(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    n = x.shape[0]
    scale = 1 + (torch.rand(n) - 0.5) * 0.24
    angle = (torch.rand(n) - 0.5) * 0.5
    flip = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)  # left-right: the i axis, here the rows
    theta = torch.zeros(n, 2, 3)
    ratio = PAD[0] / PAD[1]
    theta[:, 0, 0], theta[:, 0, 1] = scale * angle.cos(), -scale * angle.sin() * ratio * flip
    theta[:, 1, 0], theta[:, 1, 1] = scale * angle.sin() / ratio, scale * angle.cos() * flip
    theta[:, :, 2] = (torch.rand(n, 2) - 0.5) * 0.25
    grid = F.affine_grid(theta, [n, 1, *PAD], align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    y = F.grid_sample(y[:, None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)[:, 0].long()
    gain, shift = 1 + (torch.rand(n, 1, 1, 1) - 0.5) * 0.6, (torch.rand(n, 1, 1, 1) - 0.5) * 0.6
    return x * gain + shift + torch.randn_like(x) * 0.1 * torch.rand(n, 1, 1, 1), y


def loss_of(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    ce = F.cross_entropy(logits, y)
    p = logits.softmax(1)[:, 1:]
    t = F.one_hot(y, CLASSES).permute(0, 3, 1, 2)[:, 1:].float()
    dice = (2 * (p * t).sum((0, 2, 3)) + 1) / (p.sum((0, 2, 3)) + t.sum((0, 2, 3)) + 1)
    return ce + 1 - dice.mean()


def evaluate(model: nn.Module, cases: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    model.eval()
    scores: dict[str, list[float]] = {"whole": [], "anterior": [], "posterior": []}
    with torch.no_grad():
        for values, label in cases:
            found = model(torch.from_numpy(stack(values))).argmax(1).numpy()
            truth = stack(label.astype(np.float32))[:, 1].astype(int)
            for key, a, b in (
                ("whole", found > 0, truth > 0), ("anterior", found == 1, truth == 1), ("posterior", found == 2, truth == 2),
            ):  # fmt: skip
                scores[key].append(2 * (a & b).sum() / max(1, a.sum() + b.sum()))
    model.train()
    return {key: round(float(np.mean(v)), 4) for key, v in scores.items()} | {
        "worst": round(float(min(scores["whole"])), 4)
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(7)
    train_names, validation_names = split(args.data)
    train = [load_case(args.data, name) for name in train_names]
    validation = [load_case(args.data, name) for name in validation_names]
    xs = torch.from_numpy(np.concatenate([stack(v) for v, _ in train]))
    ys = torch.from_numpy(np.concatenate([stack(label.astype(np.float32))[:, 1] for _, label in train])).long()
    print(
        f"{len(xs)} slices, axes codes {nib.aff2axcodes(nib.load(args.data / 'images' / train_names[0]).affine)}",
        flush=True,
    )
    model, averaged = UNet(), UNet()
    averaged.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-3)
    started, step, told = time.monotonic(), 0, 0.0
    while (share := (time.monotonic() - started) / args.seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - share) ** 0.9
        chosen = torch.randint(len(xs), (24,))
        x, y = augment(xs[chosen], ys[chosen])
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        step += 1
        keep = min(0.995, step / (step + 10))
        with torch.no_grad():
            for a, b in zip(averaged.parameters(), model.parameters(), strict=True):
                a.lerp_(b, 1 - keep)
        if time.monotonic() - told > 60:
            told = time.monotonic()
            score = evaluate(averaged, validation)
            print(
                json.dumps({"seconds": round(told - started), "step": step, "loss": round(loss.item(), 4), **score}),
                flush=True,
            )
            torch.save(averaged.state_dict(), args.out / "weights.pt")
    score = evaluate(averaged, validation)
    print(json.dumps({"final": True, "step": step, **score}), flush=True)
    torch.save(averaged.state_dict(), args.out / "weights.pt")
    (args.out / "validation.json").write_text(
        json.dumps({"cases": len(validation), "steps": step, **score}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
