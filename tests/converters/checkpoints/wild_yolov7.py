"""A small YOLOv7 with every layer there is, as its yaml and as functions of published names."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.converters.checkpoints.wild_weights import Tensor, Weights

EPSILON = 1e-3
ANCHORS = ((10, 13, 16, 30), (30, 61, 62, 45))
CLASSES = 3
YAML = """
# parameters
nc: 3  # number of classes
depth_multiple: 0.5
width_multiple: 0.5

anchors:
  - [10,13, 16,30]  # P3/8
  - [30,61, 62,45]  # P4/16

backbone:
  # [from, number, module, args]
  [[-1, 1, ReOrg, []],                                           # 0
   [-1, 1, Conv, [16, 3, 1]],                                    # 1
   [-1, 4, Conv, [16, 3, 1, None, 1, nn.LeakyReLU(0.1)]],        # 2: twice
   [-1, 1, DownC, [32]],                                         # 3
   [-1, 1, Conv, [32, 1, 1, None, 1, False]],                    # 4
   [-2, 1, RepConv, [32, 3, 1]],                                 # 5: with identity
   [[-1, -2], 1, Shortcut, [1]],                                 # 6
   [-1, 1, MP, []],                                              # 7
   [-1, 1, Conv, [48, 3, 1, 1, 2, nn.ReLU()]],                   # 8: two groups
  ]

head:
  [[-1, 1, SPPCSPC, [32]],                                       # 9
   [-1, 1, SP, [5]],                                             # 10
   [[-1, -2], 1, Concat, [1]],                                   # 11
   [-1, 1, MP, []],                                              # 12
   [-2, 1, nn.Upsample, [None, 2, 'nearest']],                   # 13
   [[-1, 6], 1, Concat, [1]],                                    # 14
   [-1, 1, MP, []],                                              # 15
   [-1, 1, RepConv, [32, 3, 1, None, 1, nn.LeakyReLU(0.1)]],     # 16
   [12, 1, Conv, [24, 3, 1]],                                    # 17
   [16, 1, Conv, [40, 3, 1]],                                    # 18
   [17, 1, Conv, [40, 3, 1]],                                    # 19
   [[16, 17, 18, 19], 1, IAuxDetect, [nc, anchors]],             # 20
  ]
"""


def conv(w: Weights, x: Tensor, name: str, outputs: int, *how: int, act=F.silu) -> Tensor:
    return act(w.norm(w.conv(x, f"{name}.conv", outputs, *how), f"{name}.bn", EPSILON))


def leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.1)


def rep_conv(w: Weights, x: Tensor, name: str, outputs: int, act=F.silu) -> Tensor:
    total = w.norm(w.conv(x, f"{name}.rbr_dense.0", outputs, 3), f"{name}.rbr_dense.1", EPSILON)
    total = total + w.norm(w.conv(x, f"{name}.rbr_1x1.0", outputs), f"{name}.rbr_1x1.1", EPSILON)
    if x.shape[1] == outputs:
        total = total + w.norm(x, f"{name}.rbr_identity", EPSILON)
    return act(total)


def pyramid(w: Weights, x: Tensor, name: str, outputs: int) -> Tensor:
    y = conv(w, x, f"{name}.cv1", outputs)
    y = conv(w, conv(w, y, f"{name}.cv3", outputs, 3), f"{name}.cv4", outputs)
    pools = [F.max_pool2d(y, k, 1, k // 2) for k in (5, 9, 13)]
    y = conv(w, torch.cat([y, *pools], 1), f"{name}.cv5", outputs)
    y = conv(w, y, f"{name}.cv6", outputs, 3)
    return conv(w, torch.cat([y, conv(w, x, f"{name}.cv2", outputs)], 1), f"{name}.cv7", outputs)


def down(w: Weights, x: Tensor, name: str, outputs: int) -> Tensor:
    strided = conv(w, x, f"{name}.cv1", x.shape[1])
    strided = conv(w, strided, f"{name}.cv2", outputs // 2, 3, 2)
    pooled = conv(w, F.max_pool2d(x, 2, 2), f"{name}.cv3", outputs // 2)
    return torch.cat([strided, pooled], 1)


def network(w: Weights, images: Tensor, anchors=ANCHORS) -> Tensor:
    """The rows (b, n, 5 + classes) of the yaml above, in float64."""
    y: list[Tensor] = []
    x = images.double()
    x = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
    y.append(x)
    y.append(conv(w, y[0], "model.1", 8, 3))
    x = conv(w, y[1], "model.2.0", 8, 3, act=leaky)
    y.append(conv(w, x, "model.2.1", 8, 3, act=leaky))
    y.append(down(w, y[2], "model.3", 16))
    y.append(conv(w, y[3], "model.4", 16, act=lambda t: t))
    y.append(rep_conv(w, y[3], "model.5", 16))
    y.append(y[5] + y[4])
    y.append(F.max_pool2d(y[6], 2, 2))
    y.append(conv(w, y[7], "model.8", 24, 3, 1, 2, act=F.relu))
    y.append(pyramid(w, y[8], "model.9", 16))
    y.append(F.max_pool2d(y[9], 5, 1, 2))
    y.append(torch.cat([y[10], y[9]], 1))
    y.append(F.max_pool2d(y[11], 2, 2))
    y.append(F.interpolate(y[11], scale_factor=2.0, mode="nearest"))
    y.append(torch.cat([y[13], y[6]], 1))
    y.append(F.max_pool2d(y[14], 2, 2))
    y.append(rep_conv(w, y[15], "model.16", 16, act=leaky))
    y.append(conv(w, y[12], "model.17", 16, 3))
    # for training only
    for index, source in ((18, 16), (19, 17)):
        auxiliary = conv(w, y[source], f"model.{index}", 24, 3)
        w.conv(auxiliary, f"model.20.m2.{index - 18}", 2 * (5 + CLASSES), bias=True)
    return detect(w, [y[16], y[17]], anchors)


def detect(w: Weights, maps: list[Tensor], anchors) -> Tensor:
    rows = []
    values = 5 + CLASSES
    name = "model.20"
    grid = torch.tensor(anchors, dtype=torch.float32).reshape(2, 1, 2, 1, 1, 2)
    strides = (8, 16)
    w.state[f"{name}.anchor_grid"] = grid
    in_cells = grid.reshape(2, 2, 2) / torch.tensor(strides).view(2, 1, 1)
    w.state[f"{name}.anchors"] = in_cells
    for level, (x, stride) in enumerate(zip(maps, strides, strict=True)):
        x = x + w(f"{name}.ia.{level}.implicit", 1, x.shape[1], 1, 1, low=-0.2, high=0.2).double()
        x = w.conv(x, f"{name}.m.{level}", 2 * values, bias=True)
        x = x * w(f"{name}.im.{level}.implicit", 1, 2 * values, 1, 1, low=0.8, high=1.2).double()
        batch, _, height, width = x.shape
        x = x.reshape(batch, 2, values, height, width).sigmoid()
        for anchor in range(2):
            for row in range(height):
                for column in range(width):
                    t = x[:, anchor, :, row, column]
                    size = grid[level, 0, anchor, 0, 0].double()
                    center = (2 * t[:, :2] - 0.5 + torch.tensor([column, row])) * stride
                    extent = (2 * t[:, 2:4]) ** 2 * size
                    rows.append(torch.cat([center, extent, t[:, 4:]], 1))
    return torch.stack(rows, 1)
