"""What attacks and trainings are counted in."""

# Pictures through the U-Net and texts through the text encoder, one a sample of a batch. A backward pass is one whose
# output a gradient reaches.
PASSES = ["unet_forward", "unet_backward", "text_forward", "text_backward"]
