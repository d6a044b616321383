"""Scores, one a module, and the rates with their intervals.

A module with a network has load(device): an object with `name`, which becomes part of the score's name, and
`of_images(pictures)`: features (n, d), float32 on the CPU, of pictures (n, 3, h, w) uint8 or a list of (3, h, w).
An image-text network also has `truncated(texts)`: how many of them it cannot read to their end; its module has
similarity(network, pictures, texts): 100 times the cosine (n,) of each picture with its own text.
ready() is optional: it fetches what load needs, or ends with one line. It is called without importing the module.
"""
