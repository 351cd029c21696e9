"""A plain deformable convolution as an exporter traces it."""

from __future__ import annotations

import onnx
import pytest

from tests.passes.traced_layers import Layer, exported


@pytest.fixture(scope="module")
def traced_layer(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return exported(tmp_path_factory.mktemp("layer"), Layer())
