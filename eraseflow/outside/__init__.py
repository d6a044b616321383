"""What a table reads that lies where DVC does not look: weights, pictures and data sets under paths of params.yaml.

Some cheap stages note the content of these files in what they write (notes.py), and the cells depend on that. The
launcher runs these stages again where a file has changed, and the cells stop where one changes in between.
"""
