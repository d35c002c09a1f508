"""Writes trained weights as ONNX and proves that onnxruntime computes what torch computes.

python export.py hippocampus RUN/weights.pt ../src/annotomy/inference/models/hippocampus/model.onnx
"""

import sys
from importlib import util
from pathlib import Path

import numpy as np
import onnxruntime
import torch

TOLERANCE = 1e-4  # largest difference of logits between the two engines


def main() -> None:
    name, weights, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    spec = util.spec_from_file_location("train", Path(__file__).parent / name / "train.py")
    assert spec is not None and spec.loader is not None
    train = util.module_from_spec(spec)
    spec.loader.exec_module(train)
    model = train.UNet() if name == "hippocampus" else train.HeadNet()
    model.load_state_dict(torch.load(weights))
    model.eval()
    torch.manual_seed(1)
    sample = torch.randn(4, 3, *train.PAD) if name == "hippocampus" else torch.randn(1, 1, *train.GRID)
    axes = {0: "slices"} if name == "hippocampus" else {2: "i", 3: "j", 4: "k"}
    torch.onnx.export(
        model, (sample,), str(target), opset_version=17, input_names=["image"], output_names=["logits"],
        dynamic_axes={"image": axes, "logits": axes}, dynamo=False,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = model(sample).numpy()
    (found,) = session.run(None, {"image": sample.numpy()})
    difference = float(np.abs(expected - np.asarray(found)).max())
    print(f"{target}: {target.stat().st_size} bytes, largest difference {difference:.2e}")
    assert difference < TOLERANCE, difference


if __name__ == "__main__":
    main()
