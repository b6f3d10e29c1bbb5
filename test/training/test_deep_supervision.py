import torch
from torch.nn.functional import avg_pool3d, one_hot

from threedme_ros.model.config import ModelConfig
from threedme_ros.model.threedme import ThreeDME
from threedme_ros.training.deep_supervision import CoarseHeads, class_shares


def test_class_shares_are_block_means_of_the_one_hot_labels():
    labels = torch.randint(0, 5, (2, 16, 8, 24), generator=torch.Generator().manual_seed(0))
    expected = avg_pool3d(one_hot(labels, 5).movedim(-1, 1).float(), 8)
    torch.testing.assert_close(class_shares(labels.to(torch.uint8), 5, 8), expected)


def test_the_coarse_loss_reaches_the_encoder_and_falls_to_the_labels_entropy_when_the_heads_are_right():
    config = ModelConfig.of_size("small", 3)
    model, heads = ThreeDME(config), CoarseHeads(config)
    labels = torch.zeros(1, 16, 16, 32, dtype=torch.uint8)
    labels[..., 16:] = 2
    features = model.encoder(torch.zeros(1, 1, 16, 16, 32))
    heads.loss(features, labels).backward()
    assert model.encoder.graph.down[0].weight.grad.abs().sum() > 0
    assert model.encoder.vit.blocks[0].mlp[0].weight.grad.abs().sum() > 0

    # every block holds one class: heads that say so with certainty have no loss left
    sure = [(edge, 60 * class_shares(labels, 3, edge)) for edge, _ in heads(features)]
    heads.forward = lambda features: sure
    assert heads.loss(features, labels) < 1e-6
