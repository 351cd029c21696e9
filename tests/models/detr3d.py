"""DETR3D's decoder (Wang et al. 2021) behind a small backbone for each of the cameras.

Queries look at each other (multi-head attention), then at the images: their reference points in
space are projected into every camera, the maps are sampled there, and the samples that some camera
sees are weighed and summed. Each layer refines the reference points.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from tests.models.context import layer
from tests.models.weights import Drawn, build

VIEWS = 3
WIDTH = 32
QUERIES = 20
#: the space that boxes lie in: least and greatest x, y, z in metres
LOW, HIGH = (-20.0, -20.0, -3.0), (20.0, 20.0, 3.0)
#: sizes are given to projections in pixels of an image this large
PIXELS = (160.0, 96.0)
EPSILON = 1e-5


def detr3d(classes: int = 5, seed: int = 91) -> nn.Module:
    return build(lambda: Detr3d(classes), seed)


def projections(batch: int, seed: int = 0) -> NDArray[np.float32]:
    """(batch, views, 4, 4): from points in space to (pixel * depth, depth) of cameras that look
    around."""
    random = np.random.default_rng([seed, batch])
    result = np.zeros((batch, VIEWS, 4, 4), np.float32)
    width, height = PIXELS
    lens = np.array([[width / 2, 0, width / 2], [0, width / 2, height / 2], [0, 0, 1]])
    for image in range(batch):
        for view in range(VIEWS):
            angle = 2 * np.pi * (view + 0.2 * random.random()) / VIEWS
            sine, cosine = np.sin(angle), np.cos(angle)
            # the camera's right, down and forward
            axes = np.array([[sine, -cosine, 0], [0, 0, -1], [cosine, sine, 0]])
            moved = np.append(axes, -axes @ random.normal(0, 0.5, (3, 1)), 1)
            result[image, view, :3] = lens @ moved
            result[image, view, 3, 3] = 1
    return result


def inverse_sigmoid(x: torch.Tensor) -> torch.Tensor:
    return torch.log(x.clamp(EPSILON, 1.0) / (1 - x).clamp(EPSILON, 1.0))


class Detr3d(nn.Module):
    """Images (batch, views, 3, h, w) and projections to class logits and boxes of all layers."""

    def __init__(self, classes: int, layers: int = 2) -> None:
        super().__init__()
        self.stem = nn.Sequential(layer(3, 16, 3, stride=2), layer(16, WIDTH, 3, stride=2))
        self.deeper = nn.ModuleList(layer(WIDTH, WIDTH, 3, stride=2) for _ in range(2))
        self.queries = nn.Embedding(QUERIES, 2 * WIDTH)
        self.place = nn.Linear(WIDTH, 3)
        self.layers = nn.ModuleList(DecoderLayer() for _ in range(layers))
        self.classify = nn.ModuleList(mlp(WIDTH, classes) for _ in range(layers))
        self.refine = nn.ModuleList(mlp(WIDTH, 10) for _ in range(layers))

    def forward(
        self, images: torch.Tensor, projections: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.stem(images.flatten(0, 1))
        maps = []
        for step in self.deeper:
            x = step(x)
            maps.append(x)
        batch = images.shape[0]
        position, query = torch.split(self.queries.weight, WIDTH, 1)
        position = position.unsqueeze(0).expand(batch, -1, -1)
        query = query.unsqueeze(0).expand(batch, -1, -1)
        points = self.place(position).sigmoid()
        classes, boxes = [], []
        for attend, classify, refine in zip(self.layers, self.classify, self.refine, strict=True):
            query = attend(query, position, points, maps, projections)
            box = refine(query)
            centre = torch.cat([box[..., :2], box[..., 4:5]], -1) + inverse_sigmoid(points)
            points = centre.sigmoid()
            placed = points * space(HIGH, LOW) + torch.tensor(LOW)
            classes.append(classify(query))
            boxes.append(
                torch.cat([placed[..., :2], box[..., 2:4], placed[..., 2:], box[..., 5:]], -1)
            )
        return torch.stack(classes), torch.stack(boxes)


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention, feed-forward; each is added and normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        self.look = Look()
        self.feed = nn.Sequential(nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))

    def forward(
        self,
        query: torch.Tensor,
        position: torch.Tensor,
        points: torch.Tensor,
        maps: list[torch.Tensor],
        projections: torch.Tensor,
    ) -> torch.Tensor:
        placed = query + position
        query = self.norms[0](query + self.attend(placed, placed, query, need_weights=False)[0])
        query = self.norms[1](query + self.look(query + position, points, maps, projections))
        return self.norms[2](query + self.feed(query))


class Look(Drawn):
    """Samples of all maps of all cameras at the projected reference points."""

    def __init__(self) -> None:
        super().__init__()
        self.weigh = nn.Linear(WIDTH, VIEWS * 2)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.encode = nn.Sequential(
            nn.Linear(3, WIDTH), nn.LayerNorm(WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)
        )
        self.level_bias = nn.Parameter(torch.empty(2, WIDTH, 1, 1))

    def draw(self, generator: torch.Generator) -> None:
        self.level_bias.normal_(0, 0.3, generator=generator)

    def forward(
        self,
        query: torch.Tensor,
        points: torch.Tensor,
        maps: list[torch.Tensor],
        projections: torch.Tensor,
    ) -> torch.Tensor:
        batch = query.shape[0]
        grid, seen = projected(points, projections)
        samples = []
        for index, features in enumerate(maps):
            taken = F.grid_sample(
                features + self.level_bias[index],
                grid.reshape(batch * VIEWS, QUERIES, 1, 2),
                align_corners=False,
            )
            # (batch, channels, queries, views)
            samples.append(taken.view(batch, VIEWS, WIDTH, QUERIES).permute(0, 2, 3, 1))
        weights = self.weigh(query).view(batch, 1, QUERIES, VIEWS, 2).sigmoid() * seen
        summed = (torch.nan_to_num(torch.stack(samples, -1)) * weights).sum(-1).sum(-1)
        return self.mix(summed.permute(0, 2, 1)) + self.encode(inverse_sigmoid(points))


def projected(points: torch.Tensor, projections: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the cameras see points of the unit cube: (batch, views, queries, 2) in [-1, 1]; and
    whether they do: (batch, 1, queries, views, 1) of 0 and 1."""
    places = points * space(HIGH, LOW) + torch.tensor(LOW)
    places = torch.cat([places, torch.ones_like(places[..., :1])], -1)
    seen_from = torch.matmul(projections[:, :, None], places[:, None, :, :, None]).squeeze(-1)
    depth = seen_from[..., 2:3]
    flat = seen_from[..., :2] / torch.maximum(depth, torch.full_like(depth, EPSILON))
    grid = (flat / torch.tensor(PIXELS) - 0.5) * 2
    inside = (depth > EPSILON) & (grid > -1).all(-1, True) & (grid < 1).all(-1, True)
    return grid, inside.permute(0, 3, 2, 1).unsqueeze(-1).to(points.dtype)


def space(high: tuple[float, ...], low: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(high) - torch.tensor(low)


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, inputs), nn.LayerNorm(inputs), nn.ReLU(), nn.Linear(inputs, outputs)
    )
