"""The emoji testbed's own material: pictures, captions and the training of its base model and judges."""
