"""The tissues of a procedural trunk: what each is called, what the model learns of it, how it looks on CT."""

from __future__ import annotations

import numpy as np
import torch

from threedme_ros.anatomy import Anatomy
from threedme_ros.model.config import Preprocessing
from threedme_ros.training.augment import PADDING
from threedme_ros.training.synthesis import Tissues

MUSCLE, VESSEL, BONE, BOWEL = 1, 2, 3, 4
# name: structure of the model or None, family, kind, dark, HU without contrast, HU added by contrast, spread in HU
ROWS: dict[str, tuple[str | None, str, int, bool, float, float, float]] = {
    "outside": (None, "outside", 0, True, -1000, 0, 0),
    "air": (None, "outside", 0, True, -1000, 0, 10),
    "skin": (None, "skin", 0, False, 20, 10, 20),
    "fat": (None, "fat", 0, False, -100, 0, 14),
    "visceral fat": (None, "fat", 0, False, -92, 4, 18),
    "muscle": (None, "muscle", MUSCLE, False, 50, 12, 20),
    "gluteus maximus": (None, "gluteus maximus", MUSCLE, False, 42, 12, 24),
    "gluteus medius": (None, "gluteus medius", MUSCLE, False, 48, 12, 22),
    "quadratus": (None, "muscle", MUSCLE, False, 48, 12, 20),
    "diaphragm": (None, "muscle", MUSCLE, False, 48, 14, 15),
    "lung": (None, "lung", 0, True, -830, 20, 60),
    "lung vessel": (None, "lung vessel", VESSEL, False, -200, 120, 80),
    "heart wall": (None, "heart wall", MUSCLE, False, 48, 60, 15),
    "heart blood": (None, "blood", VESSEL, False, 40, 120, 15),
    "oesophagus": (None, "oesophagus", BOWEL, False, 36, 20, 20),
    "cortical bone": (None, "other bone", BONE, False, 600, 0, 150),
    "trabecular bone": (None, "other bone", BONE, False, 230, 0, 60),
    "cartilage": (None, "cartilage", BONE, False, 110, 0, 35),
    "disc": (None, "disc", 0, False, 85, 5, 18),
    "canal": (None, "canal", 0, False, 25, 5, 15),
    "vertebra cortex": ("vertebrae", "vertebrae", BONE, False, 340, 0, 110),
    "vertebra core": ("vertebrae", "vertebrae", BONE, False, 190, 0, 60),
    "hip cortex": ("hips", "hips", BONE, False, 420, 0, 130),
    "hip core": ("hips", "hips", BONE, False, 190, 0, 80),
    "rib": ("ribs", "ribs", BONE, False, 240, 0, 80),
    "autochthon": ("autochthon", "autochthon", MUSCLE, False, 46, 12, 26),
    "autochthon fat": ("autochthon", "autochthon", MUSCLE, False, 10, 8, 30),
    "iliopsoas": ("iliopsoas", "iliopsoas", MUSCLE, False, 54, 12, 18),
    "iliacus": ("iliopsoas", "iliopsoas", MUSCLE, False, 50, 12, 20),
    "aorta": ("aorta", "aorta", VESSEL, False, 42, 150, 16),
    "vena cava": ("inferior_vena_cava", "vena cava", VESSEL, False, 40, 90, 16),
    "portal vein": (None, "portal vein", VESSEL, False, 42, 110, 16),
    "artery": (None, "artery", VESSEL, False, 42, 140, 20),
    "vein": (None, "vein", VESSEL, False, 40, 85, 18),
    "liver": ("liver", "liver", 0, False, 56, 48, 13),
    "liver vessel": ("liver", "liver vessel", VESSEL, False, 42, 95, 16),
    "gallbladder": (None, "gallbladder", 0, False, 10, 2, 12),
    "spleen": ("spleen", "spleen", 0, False, 48, 62, 13),
    "right kidney cortex": ("kidney_right", "kidney", 0, False, 34, 150, 18),
    "right kidney medulla": ("kidney_right", "kidney medulla", 0, False, 28, 90, 18),
    "left kidney cortex": ("kidney_left", "kidney", 0, False, 34, 150, 18),
    "left kidney medulla": ("kidney_left", "kidney medulla", 0, False, 28, 90, 18),
    "renal pelvis": (None, "urine", 0, False, 6, 4, 12),
    "adrenal": (None, "adrenal", 0, False, 18, 45, 14),
    "pancreas": ("pancreas", "pancreas", 0, False, 30, 55, 18),
    "pancreas fat": ("pancreas", "pancreas", 0, False, 0, 20, 22),
    "stomach wall": ("stomach", "stomach wall", BOWEL, False, 42, 45, 16),
    "stomach fluid": ("stomach", "stomach fluid", BOWEL, False, 14, 0, 16),
    "stomach food": ("stomach", "stomach food", BOWEL, False, 55, 0, 60),
    "stomach gas": ("stomach", "gas", 0, True, -900, 0, 40),
    "duodenum wall": ("small_bowel", "small bowel wall", BOWEL, False, 38, 45, 16),
    "duodenum fluid": ("small_bowel", "small bowel fluid", BOWEL, False, 20, 0, 18),
    "small bowel wall": ("small_bowel", "small bowel wall", BOWEL, False, 38, 50, 16),
    "small bowel fluid": ("small_bowel", "small bowel fluid", BOWEL, False, 18, 0, 18),
    "small bowel gas": ("small_bowel", "gas", 0, True, -850, 0, 50),
    "colon wall": ("colon", "colon wall", BOWEL, False, 38, 35, 16),
    "colon stool": ("colon", "colon stool", BOWEL, False, 20, 0, 90),
    "colon fluid": ("colon", "colon fluid", BOWEL, False, 25, 0, 20),
    "colon gas": ("colon", "gas", 0, True, -900, 0, 40),
    "bladder wall": ("urinary_bladder", "bladder wall", 0, False, 35, 25, 15),
    "urine": ("urinary_bladder", "urine", 0, False, 6, 4, 10),
    "pelvic organ": (None, "pelvic organ", 0, False, 42, 45, 22),
}


class Palette:
    """Tissue name -> id, and the table of `Tissues` for one random case."""

    def __init__(self) -> None:
        self._ids = {name: number for number, name in enumerate(ROWS)}

    def __getitem__(self, name: str) -> int:
        return self._ids[name]

    def targets(self, anatomy: Anatomy) -> np.ndarray:
        """(T,) uint8: tissue id -> the model's class; 0 where ``anatomy`` lacks the structure."""
        names = [row[0] for row in ROWS.values()]
        return np.array([anatomy[n].id if n is not None and n in anatomy else 0 for n in names], np.uint8)

    def tissues(self, anatomy: Anatomy, preprocessing: Preprocessing, rng: np.random.Generator) -> Tissues:
        """A CT in a random contrast phase, with a jitter a family."""
        families = {name: number for number, name in enumerate(dict.fromkeys(row[1] for row in ROWS.values()))}
        family = np.array([families[row[1]] for row in ROWS.values()])
        kind, dark = ([row[k] for row in ROWS.values()] for k in (2, 3))
        native, added, spread = (np.array([row[k] for row in ROWS.values()], np.float64) for k in (4, 5, 6))
        enhancement = rng.choice([0.0, 1.0]) * rng.uniform(0.3, 1.3) * rng.uniform(0.7, 1.3, len(families))[family]
        hu = native + added * enhancement + rng.normal(0, 8, len(families))[family]
        low, high = preprocessing.ct_window_hu
        mean = np.clip((hu - low) / (high - low) * 2 - 1, -1, 1)
        std = np.where(hu < low, 0.05, np.minimum(spread / (high - low) * 2, 0.4))
        mean[self["outside"]] = PADDING
        return Tissues(
            target=torch.from_numpy(self.targets(anatomy)),
            family=torch.from_numpy(family),
            kind=torch.tensor(kind),
            dark=torch.tensor(dark),
            mean=torch.tensor(mean, dtype=torch.float32),
            std=torch.tensor(std, dtype=torch.float32),
        )
