"""Built-in work: a network, its data, and the recipe to train it.

Layout:
    deep.py       Fashion-MNIST with a residual network: much work, few bytes
    digits.py     scikit-learn's handwritten digits
    fashion.py    Fashion-MNIST with a small convolutional network
    watch.py      exercises told apart by a smartwatch
    wide.py       Fashion-MNIST with a network that is dear to send
    partition.py  which samples of a data set a device plays the owner of
    recipe.py     the form of data and the optimiser that these tasks share
    scale.py      the first layer: samples travel small, as they were recorded, and are scaled here
    data/         the recordings of `watch`, and their licence
"""
