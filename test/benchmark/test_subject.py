import numpy as np

from threedme_ros.benchmark.subject import changed, subject
from threedme_ros.samples import sample_case


def test_the_patient_fills_the_grid_by_mirroring(samples) -> None:
    volume, what = subject((256, 150, 90), (3.0, 3.0, 3.0))
    assert volume.shape == (256, 150, 90)
    assert volume.voxels.dtype == np.int16 and volume.spacing_mm == (3.0, 3.0, 3.0)
    assert "mirrored" in what
    patient = sample_case("A", samples).image().reoriented("RAS")[0].voxels
    n = patient.shape[0]
    np.testing.assert_array_equal(volume.voxels[:n, :101], patient[:, :101, :90])
    np.testing.assert_array_equal(volume.voxels[n : 2 * n, :101], patient[::-1, :101, :90])
    np.testing.assert_array_equal(volume.voxels[:n, 101:], patient[:, 100:51:-1, :90])
    np.testing.assert_array_equal(volume.voxels[2 * n :, :101], patient[: 256 - 2 * n, :101, :90])


def test_a_change_is_local_and_follows_its_seed() -> None:
    volume, _ = subject((128, 128, 96), (3.0, 3.0, 3.0))
    one, other = (changed(volume, seed, 12.0).voxels != volume.voxels for seed in (1, 2))
    for difference in (one, other):
        assert 0 < difference.mean() < 0.10
        assert max(np.ptp(np.argwhere(difference), axis=0)) <= 2 * 3 * 12 / 3 + 1
    assert (one != other).any()
