"""The software renderer: what is in front hides what is behind, and directions are where the camera says."""

import numpy as np
import trimesh

from threedme_ros.pictures.render import Balls, Camera, Frame, Solid, render, vertex_normals

RED, BLUE = np.array([1.0, 0.1, 0.1]), np.array([0.1, 0.1, 1.0])
FROM_THE_FRONT = Camera(towards=(0, -1, 0))
FRAME = Frame(FROM_THE_FRONT, np.zeros(3), (100, 120), 500.0)  # 0.2 x 0.24 m


def ball(centre, colour, radius=0.03):
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return Solid(mesh.vertices + centre, mesh.faces.astype(np.int32), colour)


def where(picture, channel):
    """Rows and columns where this colour channel dominates an opaque pixel."""
    other = 2 - channel
    return np.argwhere((picture[..., 3] > 0.9) & (picture[..., channel] > picture[..., other] + 0.1))


def test_seen_from_the_front_the_right_is_left_and_superior_is_up():
    assert np.allclose(FROM_THE_FRONT.rotation, [[-1, 0, 0], [0, 0, 1], [0, -1, 0]])
    picture = render([ball((0.06, 0, 0), RED), ball((0, 0, 0.06), BLUE)], FRAME)
    assert picture.shape == (100, 120, 4)
    rows, columns = where(picture, 0).mean(0)
    assert abs(rows - 50) < 2 and abs(columns - 30) < 2  # 0.06 m is 30 pixels
    rows, columns = where(picture, 2).mean(0)
    assert abs(rows - 20) < 2 and abs(columns - 60) < 2


def test_a_ball_covers_its_circle_and_shows_no_hole():
    alpha = render([ball((0, 0, 0), RED)], FRAME)[..., 3]
    assert abs(alpha.sum() - np.pi * 15**2) < 12
    assert (alpha[40:60, 50:70] == 1).all()


def test_the_nearer_hides_the_farther_in_any_order():
    near, far = ball((0, 0.05, 0), RED), ball((0, -0.05, 0), BLUE)  # anterior is nearer
    for things in ([near, far], [far, near]):
        assert len(where(render(things, FRAME), 2)) == 0


def test_points_are_balls_in_their_own_colour():
    points = np.array([[0.06, 0, 0], [-0.06, 0, 0]])
    picture = render([Balls(points, np.stack([RED, BLUE]), 0.01)], FRAME)
    assert abs(where(picture, 0)[:, 1].mean() - 30) < 1.5 and abs(where(picture, 2)[:, 1].mean() - 90) < 1.5
    assert abs(picture[..., 3].sum() - 2 * np.pi * 5**2) < 12


def test_what_lies_outside_the_frame_is_cut_off():
    assert render([ball((0.5, 0, 0), RED), Balls(np.array([[9.0, 9, 9]]), RED[None], 0.01)], FRAME)[..., 3].max() == 0
    assert render([ball((0.12, 0, 0.1), RED)], FRAME)[0, 0, 3] == 1


def test_normals_of_a_sphere_point_away_from_its_centre():
    mesh = trimesh.creation.icosphere(subdivisions=3)
    assert ((vertex_normals(mesh.vertices, mesh.faces) * mesh.vertices).sum(1) > 0.999).all()
