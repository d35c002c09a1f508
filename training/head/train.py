"""Trains the built-in head model: finds brain, ventricles, hippocampi, cerebellum and brainstem at 3 mm in any contrast.

    python train.py --labels FOLDER/synthseg-label-maps --out RUN --seconds 800

No image is used: every step paints a synthetic image over a deformed label map (the SynthSeg idea), so the network cannot
lean on one contrast. Half of the images follow the order of grey values in T1 weighting, because that is asked most often.
Needs torch, onnx and nibabel (README.md names the versions).
"""

import argparse
import json
import math
import time
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import onnx
import torch
from torch import multiprocessing as mp
from torch import nn
from torch.nn import functional as F

GRID = (64, 80, 64)  # voxels of 3 mm in RAS order: 192 x 240 x 192 mm holds an adult head
SPACING_MM = 3.0
CLASSES = 7

# FreeSurfer numbers to ours: 1 cerebrum, 2 ventricles, 3 hippocampus left, 4 hippocampus right, 5 cerebellum, 6 brainstem.
OURS = {
    1: (
        2,
        3,
        10,
        11,
        12,
        13,
        18,
        25,
        26,
        28,
        30,
        41,
        42,
        49,
        50,
        51,
        52,
        54,
        57,
        58,
        60,
        62,
        77,
        80,
        85,
        136,
        137,
        163,
        164,
    ),
    2: (4, 5, 14, 15, 43, 44, 72),
    3: (17,),
    4: (53,),
    5: (7, 8, 46, 47),
    6: (16,),
}
SULCAL_FLUID = 24
FLUID = (*OURS[2], SULCAL_FLUID)
WHITE = (2, 41, 7, 46, 16, 28, 60, 85)
OUTSIDE_BRAIN = 500  # numbers from here on are bone, muscle, skin, eyes


class Block(nn.Module):
    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inside, outside, 3, padding=1, bias=False)
        self.norm = nn.InstanceNorm3d(outside, affine=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), 0.01)


class HeadNet(nn.Module):
    """A U-Net that spends little at full resolution, where a CPU would spend nearly everything."""

    def __init__(self, widths: tuple[int, ...] = (8, 24, 48, 64), classes: int = CLASSES) -> None:
        super().__init__()
        self.stem = Block(1, widths[0])
        self.down = nn.ModuleList(nn.Sequential(Block(a, b), Block(b, b)) for a, b in pairwise(widths))
        self.up2 = Block(widths[3] + widths[2], widths[2])
        self.up1 = Block(widths[2] + widths[1], widths[1])
        self.narrow = nn.Conv3d(widths[1], 8, 1)
        self.last = Block(8 + widths[0], 12)
        self.head = nn.Conv3d(12, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.stem(x)
        b = self.down[0](F.max_pool3d(a, 2))
        c = self.down[1](F.max_pool3d(b, 2))
        d = self.down[2](F.max_pool3d(c, 2))
        c = self.up2(torch.cat([F.interpolate(d, scale_factor=2.0, mode="nearest"), c], 1))
        b = self.up1(torch.cat([F.interpolate(c, scale_factor=2.0, mode="nearest"), b], 1))
        a = self.last(torch.cat([F.interpolate(self.narrow(b), scale_factor=2.0, mode="nearest"), a], 1))
        return self.head(a)


def normalise(values: torch.Tensor) -> torch.Tensor:
    """Clip the brightest 0.5 %, then z-score over the whole volume; the runner does the same."""
    top = torch.quantile(values.flatten()[::7], 0.995)
    values = values.clamp(max=top.item())
    return (values - values.mean()) / (values.std() + 1e-6)


def load_maps(folder: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Label maps in RAS order at 1 mm with the centre of each brain."""
    maps = []
    for path in sorted(folder.glob("training_seg_*.nii.gz")):
        data = np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj).astype(np.int16)
        where = np.argwhere((data > 0) & (data < OUTSIDE_BRAIN) & (data != SULCAL_FLUID))
        centre = (where.min(0) + where.max(0)) / 2
        maps.append((torch.from_numpy(data), torch.tensor(centre, dtype=torch.float32)))
    return maps


def filled(target: torch.Tensor) -> torch.Tensor:
    """Count narrow sulci as cerebrum: a closing by one voxel. 3 mm cannot show them, and brain masks fill them too."""
    brain = (target > 0).float()[None, None]
    closed = -F.max_pool3d(-F.max_pool3d(brain, 3, 1, 1), 3, 1, 1)
    return torch.where((closed[0, 0] > 0) & (target == 0), 1, target)


class Painter:
    """Makes pairs (image, labels) from label maps."""

    def __init__(self, maps: list[tuple[torch.Tensor, torch.Tensor]], seed: int) -> None:
        self.maps = maps
        self.random = torch.Generator().manual_seed(seed)
        self.ours = torch.zeros(1024, dtype=torch.long)
        for ours, theirs in OURS.items():
            self.ours[list(theirs)] = ours

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * torch.rand(1, generator=self.random).item()

    def deformed(self) -> torch.Tensor:
        """A label map on a grid of 1.5 mm, turned, scaled, sheared, bent, and mirrored half of the time."""
        data, centre = self.maps[int(self.uniform(0, len(self.maps) - 1e-4))]
        axes = [torch.linspace(-1, 1, n) * (n * SPACING_MM / 2) for n in GRID]
        coarse = [F.interpolate(a[None, None], 9, mode="linear", align_corners=True)[0, 0] for a in axes]
        points = torch.stack(torch.meshgrid(*coarse, indexing="ij"))
        matrix = torch.eye(3)
        for p, q in ((0, 1), (0, 2), (1, 2)):
            angle = self.uniform(-0.3, 0.3)
            turn = torch.eye(3)
            turn[p, p] = turn[q, q] = math.cos(angle)
            turn[p, q], turn[q, p] = -math.sin(angle), math.sin(angle)
            matrix = matrix @ turn
        matrix = matrix @ torch.diag(torch.tensor([self.uniform(0.85, 1.18) for _ in range(3)]))
        matrix = matrix + (torch.rand(3, 3, generator=self.random) - 0.5) * 0.12 * (1 - torch.eye(3))
        mirrored = self.uniform(0, 1) < 0.5
        if mirrored:
            matrix[0] *= -1
        shift = torch.tensor([self.uniform(-18, 18), self.uniform(-22, 22), self.uniform(-22, 22)])
        bend = F.interpolate(
            torch.randn(1, 3, 5, 5, 5, generator=self.random), size=(9, 9, 9), mode="trilinear", align_corners=True
        )[0]
        points = torch.einsum("ab,bijk->aijk", matrix, points) + bend * self.uniform(0, 5)
        points = points + (centre + shift)[:, None, None, None]
        fine = [2 * n for n in GRID]
        points = (
            F.interpolate(points[None], size=fine, mode="trilinear", align_corners=True)[0].round_().to(torch.int32)
        )
        size = torch.tensor(data.shape, dtype=torch.int32)[:, None, None, None]
        inside = ((points >= 0) & (points < size)).all(0)
        points = points.clamp_(0).minimum(size - 1)
        flat = (points[0].long() * data.shape[1] + points[1]) * data.shape[2] + points[2]
        labels = data.flatten()[flat] * inside
        if mirrored:
            low, high = labels == 17, labels == 53
            labels[low], labels[high] = 53, 17
        return labels.long()

    def tones(self) -> torch.Tensor:
        mean = torch.rand(1024, generator=self.random)
        kind = self.uniform(0, 1)
        if kind < 0.5:  # T1-like: white brighter than grey brighter than fluid
            mean[:OUTSIDE_BRAIN] = self.uniform(0.45, 0.68)
            mean[:OUTSIDE_BRAIN] += (torch.rand(OUTSIDE_BRAIN, generator=self.random) - 0.5) * 0.12
            mean[list(WHITE)] = self.uniform(0.75, 0.95)
            mean[[10, 49, 13, 52]] = self.uniform(0.65, 0.85)
            mean[list(FLUID)] = self.uniform(0.05, 0.3)
        elif kind < 0.75:  # T2- or FLAIR-like and their reverse: left and right agree
            grey, white, fluid = (self.uniform(0, 1) for _ in range(3))
            mean[:OUTSIDE_BRAIN] = grey + (torch.rand(OUTSIDE_BRAIN, generator=self.random) - 0.5) * 0.15
            mean[list(WHITE)] = white
            mean[list(FLUID)] = fluid
        for left, right in (
            (2, 41),
            (3, 42),
            (4, 43),
            (5, 44),
            (7, 46),
            (8, 47),
            (10, 49),
            (11, 50),
            (12, 51),
            (13, 52),
            (17, 53),
            (18, 54),
        ):
            mean[right] = mean[left]
        mean[0] = 0 if self.uniform(0, 1) < 0.8 else self.uniform(0, 0.5)
        return mean

    def pair(self, labels: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        labels = self.deformed() if labels is None else labels.clone()
        stripped = self.uniform(0, 1)
        if stripped < 0.3:  # many volumes come without skull, with or without the fluid around the brain
            labels[labels >= OUTSIDE_BRAIN] = 0
            if stripped < 0.12:
                labels[labels == SULCAL_FLUID] = 0
        mean = self.tones()
        spread = torch.rand(1024, generator=self.random) * self.uniform(0.02, 0.14)
        if mean[0] == 0:
            spread[0] = 0.01
        image = mean[labels] + spread[labels] * torch.randn(labels.shape, generator=self.random)
        image = F.avg_pool3d(image[None, None], 2)
        bias = torch.randn(1, 1, 4, 4, 4, generator=self.random) * self.uniform(0, 0.35)
        image = image * F.interpolate(bias, size=GRID, mode="trilinear", align_corners=True).exp()
        for axis in range(3):
            sigma = self.uniform(0, 0.7) if self.uniform(0, 1) < 0.8 else self.uniform(0.7, 1.4)
            taps = torch.exp(-0.5 * (torch.arange(-3, 4) / max(sigma, 0.05)) ** 2)
            shape = [1, 1, 1, 1, 1]
            shape[2 + axis] = 7
            padding = [0, 0, 0]
            padding[axis] = 3
            image = F.conv3d(image, (taps / taps.sum()).reshape(shape), padding=padding)
        image = image.clamp(min=0)
        image = (image / image.max()) ** self.uniform(0.65, 1.5)
        if self.uniform(0, 1) < 0.15:  # a field of view that ends inside the head
            axis, cut = int(self.uniform(0, 3 - 1e-4)), int(self.uniform(0, 14))
            place = [slice(None)] * 5
            place[2 + axis] = slice(0, cut) if self.uniform(0, 1) < 0.5 else slice(GRID[axis] - cut, None)
            image[tuple(place)] = 0
        return normalise(image[0]), filled(self.ours[labels[::2, ::2, ::2]])


def paint_for_ever(folder: Path, seed: int, queue: "mp.Queue[tuple[np.ndarray, np.ndarray]]") -> None:
    torch.set_num_threads(1)
    painter = Painter(load_maps(folder)[:18], seed)
    while True:
        deformed = painter.deformed()
        for _ in range(2):  # deforming costs as much as painting
            image, labels = painter.pair(deformed)
            queue.put((image.numpy().astype(np.float32), labels.numpy().astype(np.uint8)))


def loss_of(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    weight = torch.tensor([1.0, 1.0, 2.0, 4.0, 4.0, 1.0, 2.0])
    p = logits.softmax(1)[:, 1:]
    t = F.one_hot(target, CLASSES).permute(0, 4, 1, 2, 3)[:, 1:].float()
    dice = (2 * (p * t).sum((0, 2, 3, 4)) + 1) / (p.sum((0, 2, 3, 4)) + t.sum((0, 2, 3, 4)) + 1)
    return F.cross_entropy(logits, target, weight) + 1 - dice.mean()


def evaluate(model: nn.Module, pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
    names = ("cerebrum", "ventricles", "hippocampus_left", "hippocampus_right", "cerebellum", "brainstem")
    scores: dict[str, list[float]] = {"brain": [], **{name: [] for name in names}}
    model.eval()
    with torch.no_grad():
        for image, truth in pairs:
            found = model(image[None]).argmax(1)[0]
            checks = [("brain", found > 0, truth > 0)]
            checks += [(name, found == n, truth == n) for n, name in enumerate(names, 1)]
            for name, a, b in checks:
                scores[name].append((2 * (a & b).sum() / max(1, int(a.sum() + b.sum()))).item())
    model.train()
    return {name: round(float(np.mean(v)), 4) for name, v in scores.items()}


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    """From a run's weights.pt or from the ONNX file that was exported from one."""
    if path.suffix != ".onnx":
        return torch.load(path)
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    return {name: torch.from_numpy(stored[name].copy()) for name in HeadNet().state_dict()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=800)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--start", type=Path, help="weights of an earlier run, or its ONNX file, to go on from")
    parser.add_argument("--rate", type=float, default=4e-3, help="highest learning rate; 2e-3 when going on")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    queue: mp.Queue[tuple[np.ndarray, np.ndarray]] = mp.Queue(maxsize=12)
    child = mp.Process(target=paint_for_ever, args=(args.labels, args.seed, queue), daemon=True)
    child.start()
    judge = Painter(load_maps(args.labels)[18:], 99)  # two heads that training never paints
    validation = [judge.pair() for _ in range(5)]
    model, averaged = HeadNet(), HeadNet()
    if args.start is not None:
        model.load_state_dict(weights_of(args.start))
    averaged.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=1e-4)
    started, step, told = time.monotonic(), 0, time.monotonic()
    while (share := (time.monotonic() - started) / args.seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = args.rate * min(1, (step + 1) / 20) * (1 - share) ** 0.9
        image, labels = queue.get()
        optimizer.zero_grad()
        loss = loss_of(model(torch.from_numpy(image)[None]), torch.from_numpy(labels)[None].long())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        step += 1
        keep = min(0.98, step / (step + 10))
        with torch.no_grad():
            for a, b in zip(averaged.parameters(), model.parameters(), strict=True):
                a.lerp_(b, 1 - keep)
        if time.monotonic() - told > 90 or step == 1:
            told = time.monotonic()
            line = {"seconds": round(told - started), "step": step, "loss": round(loss.item(), 4)}
            print(json.dumps({**line, **evaluate(averaged, validation)}), flush=True)
            torch.save(averaged.state_dict(), args.out / "weights.pt")
    score = evaluate(averaged, validation)
    print(json.dumps({"final": True, "step": step, **score}), flush=True)
    torch.save(averaged.state_dict(), args.out / "weights.pt")
    (args.out / "validation.json").write_text(
        json.dumps({"images": len(validation), "steps": step, **score}, indent=2) + "\n"
    )
    child.terminate()


if __name__ == "__main__":
    main()
