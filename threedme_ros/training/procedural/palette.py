"""The tissues of a procedural trunk: what each is called, what the model learns of it, how it looks on CT."""

from __future__ import annotations

import numpy as np
import torch

from threedme_ros.anatomy import Anatomy
from threedme_ros.model.config import Preprocessing
from threedme_ros.training.augment import PADDING
from threedme_ros.training.substances import Substance
from threedme_ros.training.tissues import BONE, BOWEL, MUSCLE, VESSEL, Tissues

FREE = "visceral fat"
"""What fills the cavity at first: soft organs are painted over it, the earlier ones first."""
TEXTURE = 0.02
"""Standard deviation inside a tissue, in the model's -1..1."""
# name: structure of the model or None, family, kind, dark, what it is made of, HU without contrast
ROWS: dict[str, tuple[str | None, str, int, bool, Substance, float]] = {
    "outside": (None, "outside", 0, True, Substance.GAS, -1000),
    "air": (None, "outside", 0, True, Substance.GAS, -1000),
    "skin": (None, "skin", 0, False, Substance.MUSCLE, 20),
    "fat": (None, "fat", 0, False, Substance.FAT, -100),
    "visceral fat": (None, "fat", 0, False, Substance.FAT, -92),
    "muscle": (None, "muscle", MUSCLE, False, Substance.MUSCLE, 50),
    "gluteus maximus": (None, "gluteus maximus", MUSCLE, False, Substance.MUSCLE, 42),
    "gluteus medius": (None, "gluteus medius", MUSCLE, False, Substance.MUSCLE, 48),
    "quadratus": (None, "muscle", MUSCLE, False, Substance.MUSCLE, 48),
    "diaphragm": (None, "muscle", MUSCLE, False, Substance.MUSCLE, 48),
    "lung": (None, "lung", 0, True, Substance.LUNG, -830),
    "lung vessel": (None, "lung vessel", VESSEL, False, Substance.VEIN, -200),
    "heart wall": (None, "heart wall", MUSCLE, False, Substance.HEART, 48),
    "heart blood": (None, "blood", VESSEL, False, Substance.HEART, 40),
    "oesophagus": (None, "oesophagus", BOWEL, False, Substance.GUT_WALL, 36),
    "cortical bone": (None, "other bone", BONE, False, Substance.CORTICAL_BONE, 600),
    "trabecular bone": (None, "other bone", BONE, False, Substance.MARROW, 230),
    "cartilage": (None, "cartilage", BONE, False, Substance.CARTILAGE, 110),
    "disc": (None, "disc", 0, False, Substance.CARTILAGE, 85),
    "canal": (None, "canal", 0, False, Substance.NERVE, 25),
    "vertebra cortex": ("vertebrae", "vertebrae", BONE, False, Substance.CORTICAL_BONE, 340),
    "vertebra core": ("vertebrae", "vertebrae", BONE, False, Substance.MARROW, 190),
    "hip cortex": ("hips", "hips", BONE, False, Substance.CORTICAL_BONE, 420),
    "hip core": ("hips", "hips", BONE, False, Substance.MARROW, 190),
    "rib": ("ribs", "ribs", BONE, False, Substance.MARROW, 240),
    "autochthon": ("autochthon", "autochthon", MUSCLE, False, Substance.MUSCLE, 46),
    "autochthon fat": ("autochthon", "autochthon", MUSCLE, False, Substance.MUSCLE, 10),
    "iliopsoas": ("iliopsoas", "iliopsoas", MUSCLE, False, Substance.MUSCLE, 54),
    "iliacus": ("iliopsoas", "iliopsoas", MUSCLE, False, Substance.MUSCLE, 50),
    "aorta": ("aorta", "aorta", VESSEL, False, Substance.ARTERY, 42),
    "vena cava": ("inferior_vena_cava", "vena cava", VESSEL, False, Substance.VEIN, 40),
    "portal vein": (None, "portal vein", VESSEL, False, Substance.PORTAL_VEIN, 42),
    "artery": (None, "artery", VESSEL, False, Substance.ARTERY, 42),
    "vein": (None, "vein", VESSEL, False, Substance.VEIN, 40),
    "liver": ("liver", "liver", 0, False, Substance.LIVER, 56),
    "liver vessel": ("liver", "liver vessel", VESSEL, False, Substance.PORTAL_VEIN, 42),
    "gallbladder": (None, "gallbladder", 0, False, Substance.FLUID, 10),
    "spleen": ("spleen", "spleen", 0, False, Substance.SPLEEN, 48),
    "right kidney cortex": ("kidney_right", "kidney", 0, False, Substance.KIDNEY, 34),
    "right kidney medulla": ("kidney_right", "kidney medulla", 0, False, Substance.KIDNEY, 28),
    "left kidney cortex": ("kidney_left", "kidney", 0, False, Substance.KIDNEY, 34),
    "left kidney medulla": ("kidney_left", "kidney medulla", 0, False, Substance.KIDNEY, 28),
    "renal pelvis": (None, "urine", 0, False, Substance.URINE, 6),
    "adrenal": (None, "adrenal", 0, False, Substance.GLAND, 18),
    "pancreas": ("pancreas", "pancreas", 0, False, Substance.PANCREAS, 30),
    "pancreas fat": ("pancreas", "pancreas", 0, False, Substance.PANCREAS, 0),
    "stomach wall": ("stomach", "stomach wall", BOWEL, False, Substance.GUT_WALL, 42),
    "stomach fluid": ("stomach", "stomach fluid", BOWEL, False, Substance.GUT_CONTENT, 14),
    "stomach food": ("stomach", "stomach food", BOWEL, False, Substance.GUT_CONTENT, 55),
    "stomach gas": ("stomach", "gas", 0, True, Substance.GAS, -900),
    "duodenum wall": ("small_bowel", "small bowel wall", BOWEL, False, Substance.GUT_WALL, 38),
    "duodenum fluid": ("small_bowel", "small bowel fluid", BOWEL, False, Substance.GUT_CONTENT, 20),
    "small bowel wall": ("small_bowel", "small bowel wall", BOWEL, False, Substance.GUT_WALL, 38),
    "small bowel fluid": ("small_bowel", "small bowel fluid", BOWEL, False, Substance.GUT_CONTENT, 18),
    "small bowel gas": ("small_bowel", "gas", 0, True, Substance.GAS, -850),
    "colon wall": ("colon", "colon wall", BOWEL, False, Substance.GUT_WALL, 38),
    "colon stool": ("colon", "colon stool", BOWEL, False, Substance.GUT_CONTENT, 20),
    "colon fluid": ("colon", "colon fluid", BOWEL, False, Substance.GUT_CONTENT, 25),
    "colon gas": ("colon", "gas", 0, True, Substance.GAS, -900),
    "bladder wall": ("urinary_bladder", "bladder wall", 0, False, Substance.GUT_WALL, 35),
    "urine": ("urinary_bladder", "urine", 0, False, Substance.URINE, 6),
    "pelvic organ": (None, "pelvic organ", 0, False, Substance.GLAND, 42),
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
        """A plain CT without contrast, with a jitter a family."""
        families = {name: number for number, name in enumerate(dict.fromkeys(row[1] for row in ROWS.values()))}
        family = np.array([families[row[1]] for row in ROWS.values()])
        kind, dark, substance, hu = ([row[k] for row in ROWS.values()] for k in (2, 3, 4, 5))
        low, high = preprocessing.ct_window_hu
        hu = np.array(hu) + rng.normal(0, 8, len(families))[family]
        mean = np.clip((hu - low) / (high - low) * 2 - 1, -1, 1)
        mean[self["outside"]] = PADDING
        return Tissues(
            target=torch.from_numpy(self.targets(anatomy)),
            family=torch.from_numpy(family),
            kind=torch.tensor(kind),
            dark=torch.tensor(dark),
            mean=torch.tensor(mean, dtype=torch.float32),
            std=torch.full((len(ROWS),), TEXTURE),
            substance=torch.tensor(substance),
            ct_window_hu=preprocessing.ct_window_hu,
        )
