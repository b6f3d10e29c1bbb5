"""3DME: the dual-branch 3-D encoder (ViT and voxel graph), plane attention, decoder, and its checkpoint format.

Arrays are (B, C, D, H, W) = (batch, channel, Superior, Anterior, Right): ``voxels.T`` of a canonical RAS+ volume.
"""
