"""Testbeds, one a module: the base pipeline, and the real pictures that its kept prompts stand for.

base_model.py is none: it says which base models are supported, and testbeds ask it.

load_pipeline(model, device): the base pipeline, ready to draw. BATCH: pictures that it draws at once.
LICENCE: what an edited model is shared under, its name on the Hub and a sentence or two.
ready(testbed, device): fetches what the testbed needs, or ends with one line; called before any stage, without
    importing the module, and with "" where no device is asked for.
real_names(testbed): the names of the real pictures. real_pictures(testbed, names): these pictures, (n, 3, h, w) uint8
    or a list of (3, h, w). OWN, where a testbed has it: judges and metrics that read its pictures alone; PICTURED,
    likewise: all that its kept prompts may expect. Both are read as `ready` is.
compared(names, expect): the places in `names` of the pictures with which the distances
    compare drawings that expect these labels or files.
Optional, and read without importing the module: outside(testbed), the real pictures' files where DVC does not watch
    them; FILES, patterns of what is read of a base model's folder, all of it if left out.
"""
