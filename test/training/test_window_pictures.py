"""The picture of training windows: without padding, the right way round, labels coloured where they are."""

import numpy as np
import torch

from threedme_ros.training.window_pictures import OPACITY, draw_windows, window_tile


def window():
    """A box of grey in padding; structure 4 in its right, front, upper corner."""
    image, labels = torch.full((16, 32, 32), -1.0), torch.zeros(16, 32, 32, dtype=torch.uint8)
    image[2:10, 8:28, 4:24] = 0.0
    labels[6:10, 18:28, 14:24] = 4
    return image, labels


def test_a_tile_shows_the_box_that_is_seen_as_a_radiologist_does(anatomy):
    tile = window_tile(*window(), anatomy)
    assert tile.shape == (40, 40, 3)  # 20 columns twice; 20 rows of H and 8 of D, in the middle of a square
    content = tile[6:34]
    assert (content[:, :20] == 127).all() and (tile[:6] == 0).all() and (tile[34:] == 0).all()
    marked = (content[:, 20:] != 127).any(-1)
    # axial: front up, the patient's right on the left; coronal: head up
    assert marked[:10, :10].all() and not marked[10:20].any() and not marked[:20, 10:].any()
    assert marked[20:24, :10].all() and not marked[24:].any()
    colour = (1 - OPACITY) * 127.5 + OPACITY * np.array(next(s.colour for s in anatomy if s.id == 4))
    np.testing.assert_allclose(content[0, 20], colour, atol=1)


def test_an_empty_window_is_drawn_black(anatomy):
    empty = window_tile(torch.full((16, 16, 16), -1.0), torch.zeros(16, 16, 16, dtype=torch.uint8), anatomy)
    assert (empty == 0).all()


def test_a_picture_holds_a_tile_a_window(tmp_path, anatomy):
    from PIL import Image

    image, labels = window()
    draw_windows(
        tmp_path / "windows.png", [(image[None], labels)] * 7, anatomy, list("abcdefg"), title="t", subtitle="s"
    )
    pixels = np.asarray(Image.open(tmp_path / "windows.png").convert("RGB")).astype(int)
    grey = (np.abs(pixels - 127).max(-1) <= 1).any(0)  # columns with the box's grey
    assert grey[: len(grey) // 6].any() and grey[-len(grey) // 6 :].any()
