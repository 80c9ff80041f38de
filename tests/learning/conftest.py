import torch
from hypothesis import settings

torch.set_num_threads(1)  # networks this small only lose by more

settings.register_profile("learning", deadline=None)  # a shared machine is slow now and then
settings.load_profile("learning")
