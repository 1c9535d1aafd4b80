"""Check that a camera's matrix is a rotation and a position, and take out a scale."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.errors import UserError

LENGTH = 1e-3  # by which the length of an axis may differ from 1
SQUARE = 1e-2  # cosine up to which two axes count as perpendicular


def rigid_pose(matrix: Sequence[Sequence[float]], where: str) -> list[list[float]]:
    """The first three rows of a camera-to-world matrix, with axes of length 1.

    A camera of another scale sees the same, so the lengths of axes, which Blender exports with a scaled camera, are
    taken out.

    Args:
        matrix: 3 or 4 rows of 4 numbers.
        where: What it is of, for errors.

    Raises:
        UserError: an axis has no length, axes are not at right angles, the matrix mirrors, or it is transposed.
    """
    way_out = "Give camera-to-world matrices, a rotation and a position, with the axes of OpenGL."
    axes = [[row[column] for row in matrix[:3]] for column in range(3)]
    lengths = [math.hypot(*axis) for axis in axes]
    if min(lengths) < 1e-6:
        raise UserError(f"{where} has an axis of length 0, so it is no rotation. {way_out}")
    if len(matrix) == 4 and any(abs(a - b) > 1e-4 for a, b in zip(matrix[3], (0.0, 0.0, 0.0, 1.0), strict=True)):
        alike = all(abs(row[3]) < 1e-6 for row in matrix[:3])
        why = "is transposed, it seems: its last row is a position" if alike else "has a last row that is not 0 0 0 1"
        raise UserError(f"{where} {why}. {way_out}")
    right, up, back = units = [[part / length for part in axis] for axis, length in zip(axes, lengths, strict=True)]
    if max(abs(_dot(right, up)), abs(_dot(right, back)), abs(_dot(up, back))) > SQUARE:
        raise UserError(f"{where} has axes that are not at right angles, so it is no rotation. {way_out}")
    if _dot(_cross(right, up), back) < 0:
        raise UserError(f"{where} mirrors, so it is no rotation. {way_out}")
    if all(abs(length - 1) <= LENGTH for length in lengths):
        return [list(row) for row in matrix[:3]]
    return [[*(unit[row] for unit in units), matrix[row][3]] for row in range(3)]


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _cross(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
