"""What a segmentation loses when the scan gets worse: named corruptions at graded strengths, scored and drawn."""
