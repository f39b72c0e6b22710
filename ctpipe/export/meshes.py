"""STL and GLB of surfaces. STL: binary, one solid, mm. GLB (glTF 2.0): a coloured node for each class, in metres.

STL has no unit and no names; it is written in patient millimetres (LPS), as medical tools expect. glTF has metres and a
y axis that points up: its root node turns and shrinks LPS millimetres so that the patient's head is up and the front
looks to the viewer; the points themselves stay LPS millimetres. Source: glTF 2.0 (ISO/IEC 12113) 3.4, 3.6, 4.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctpipe import __version__
from ctpipe.export.files import whole_file
from ctpipe.export.surface import Mesh

_FACE = np.dtype([("normal", "<f4", 3), ("points", "<f4", (3, 3)), ("attribute", "<u2")])
_FACES_AT_ONCE = 1 << 18
_FLOAT, _UINT = 5126, 5125  # component types of glTF
_ARRAY, _ELEMENTS = 34962, 34963  # targets of a buffer view
# LPS mm -> metres with y up (S) and z to the viewer (A); columns of a 4x4, one after the other as glTF has them.
_LPS_TO_GLTF = (0.001, 0, 0, 0, 0, 0, -0.001, 0, 0, 0.001, 0, 0, 0, 0, 0, 1)

Named = tuple[str, tuple[int, int, int], Mesh]  # class, 8-bit red, green and blue, surface


def write_stl(mesh: Mesh, path: Path) -> None:
    """One surface as a binary STL in LPS mm. The header holds no text of the store."""
    with whole_file(path) as file:
        file.write(f"ctpipe {__version__} LPS mm".encode().ljust(80, b"\0"))
        file.write(struct.pack("<I", len(mesh.faces)))
        for at in range(0, len(mesh.faces), _FACES_AT_ONCE):
            corners = mesh.points[mesh.faces[at : at + _FACES_AT_ONCE]]
            out = np.zeros(len(corners), _FACE)
            out["points"], out["normal"] = corners, _normals(corners)
            file.write(out.tobytes())


def write_glb(meshes: Sequence[Named], path: Path) -> None:
    """All surfaces in one file, each under the name and in the colour of its class."""
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": f"ctpipe {__version__}"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "patient", "matrix": list(_LPS_TO_GLTF), "children": []}],
        "meshes": [], "materials": [], "accessors": [], "bufferViews": [],
    }  # fmt: skip
    blocks: list[bytes] = []
    for name, colour, mesh in meshes:
        _add(document, blocks, name, colour, mesh)
    binary = b"".join(blocks)
    document["buffers"] = [{"byteLength": len(binary)}]
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    with whole_file(path) as file:
        file.write(struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(binary)))
        file.write(struct.pack("<I4s", len(text), b"JSON") + text)
        file.write(struct.pack("<I4s", len(binary), b"BIN\0") + binary)


def _add(document: dict[str, Any], blocks: list[bytes], name: str, colour: tuple[int, int, int], mesh: Mesh) -> None:
    points = mesh.points.astype("<f4")
    number = len(document["meshes"])
    position = _accessor(document, blocks, points, _FLOAT, "VEC3", _ARRAY)
    position.update(min=points.min(axis=0).tolist(), max=points.max(axis=0).tolist())
    _accessor(document, blocks, mesh.faces.astype("<u4").ravel(), _UINT, "SCALAR", _ELEMENTS)
    document["meshes"].append({"name": name, "primitives": [
        {"attributes": {"POSITION": 2 * number}, "indices": 2 * number + 1, "material": number}]})  # fmt: skip
    document["materials"].append({"name": name, "pbrMetallicRoughness": {
        "baseColorFactor": [*(_linear(part) for part in colour), 1.0], "metallicFactor": 0.0,
        "roughnessFactor": 0.8}})  # fmt: skip
    document["nodes"].append({"name": name, "mesh": number})
    document["nodes"][0]["children"].append(number + 1)


def _accessor(
    document: dict[str, Any], blocks: list[bytes], values: NDArray, component: int, kind: str, target: int
) -> dict[str, Any]:
    data = values.tobytes()
    at = sum(map(len, blocks))
    document["bufferViews"].append({"buffer": 0, "byteOffset": at, "byteLength": len(data), "target": target})
    entry = {"bufferView": len(document["bufferViews"]) - 1, "componentType": component, "count": len(values),
             "type": kind}  # fmt: skip
    document["accessors"].append(entry)
    blocks.append(data)
    return entry


def _normals(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)


def _linear(part: int) -> float:
    """Eight bits of sRGB -> linear light, as glTF wants colour factors."""
    value = part / 255
    return round(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4, 6)
