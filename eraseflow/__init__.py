from eraseflow import home

home.settle()
