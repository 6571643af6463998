"""What a page looks like, as pixels."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.image import imread

if TYPE_CHECKING:
    from chromium import Watched
    from numpy.typing import NDArray


class Picture:
    """A screenshot: red, green and blue of each pixel of the page, 0 to 1, by row and column."""

    def __init__(self, pixels: NDArray[np.float32]) -> None:
        self.pixels = pixels

    @classmethod
    async def of(cls, watched: Watched) -> Picture:
        """The page as it is now, what was changed before drawn."""
        await watched.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return cls(imread(io.BytesIO(await watched.page.screenshot()), format="png")[:, :, :3])

    def column(self, x: float, width: int = 3) -> NDArray[np.float32]:
        """What is drawn around a column."""
        middle = round(x)
        return self.pixels[:, middle - width // 2 : middle + width // 2 + 1]

    def color(self, left: float, top: float, width: int = 6, height: int = 6) -> NDArray[np.float32]:
        """The average colour of a rectangle."""
        x, y = round(left), round(top)
        average: NDArray[np.float32] = self.pixels[y : y + height, x : x + width].mean(axis=(0, 1))
        return average
